# Sets `command`: a sweep that exists is resumed. A driver that was killed on another machine seems to live for a minute
# more, in which `hpo resume` would refuse.
begin() {
  local state
  command=("${start[@]}")
  for _ in {1..12}; do
    state=$("${exists[@]}" 2>/dev/null) || return 0
    command=("${again[@]}")
    grep -q '"phase": "\(searching\|finalising\)"' <<<"$state" || return 0
    sleep 10
  done
}

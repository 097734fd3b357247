# From here on the script is the same for every sweep. It runs on the head of the cluster.

command=("${start[@]}")
"${exists[@]}" >/dev/null 2>&1 && command=("${again[@]}")
echo "$$" >/tmp/hpo-driver  # for pause.sh; exec keeps the number
exec "${command[@]:0:2}" --address auto "${command[@]:2}"

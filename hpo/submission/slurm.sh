say() { echo "hpo: $*" >&2; }
free() { ! (exec 3<>"/dev/tcp/$ip/$1") 2>/dev/null; }  # whether nothing listens at this port of the head

# Ray's processes answer only to whom has the token. It goes to the workers with srun's environment and lies in no file.
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_TOKEN
unset RAY_ADDRESS RAY_AUTH_TOKEN_PATH

# Folder and port by the job's number, since jobs share machines. Short: the path of a Unix socket has at most 107 bytes.
export folder=/tmp/hpo-$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}
ip=$(getent ahostsv4 "${SLURMD_NODENAME:-$(hostname)}" | awk 'NR == 1 { print $1 }')
case $ip in '' | 127.*) ip=$(hostname --all-ip-addresses | awk '{ print $1 }') ;; esac
ip=${ip:-127.0.0.1}
port=$((20000 + SLURM_JOB_ID % 10000))  # below the ports that Linux gives to clients, from 32768
until free "$port" && free $((port + 1)); do port=$((port + 2)); done
export address=$ip:$port

# A folder that only this user can read: a name in /tmp can be guessed, so what another user put there is refused.
private() { mkdir -m 700 -- "$1" 2>/dev/null || { [ -d "$1" ] && [ ! -L "$1" ] && [ -O "$1" ]; }; }

# One machine's worker: its CPUs and GPUs, as Slurm gave them to this step. Ray refuses more GPUs than are visible.
worker() {
  local own=$folder/w$SLURM_PROCID gpus=${SLURM_GPUS_ON_NODE:-0} devices ray stopped=no
  case ${CUDA_VISIBLE_DEVICES-unset} in
    unset) ;;
    '' | -1 | NoDevFiles) gpus=0 ;;
    *) IFS=, read -ra devices <<<"$CUDA_VISIBLE_DEVICES" && gpus=${#devices[@]} ;;
  esac
  private "$folder" && mkdir -p "$own" || { echo "hpo: $(hostname): $folder is not ours" >&2; return 1; }
  trap 'stopped=yes; kill -TERM "$ray" 2>/dev/null' TERM
  for _ in {1..3}; do  # Ray gives its processes 30 s to start, too little on a machine under load
    ray start --block --address="$address" --num-cpus="${SLURM_CPUS_PER_TASK:-1}" --num-gpus="$gpus" \
      --object-store-memory="$object_store" --temp-dir="$own" --min-worker-port=0 --max-worker-port=0 \
      --dashboard-agent-listen-port=0 >"$own/start.log" 2>&1 &
    ray=$!
    while kill -0 "$ray" 2>/dev/null; do wait "$ray"; done
    if [ "$stopped" = yes ] || grep -q "Ray runtime started" "$own/start.log"; then break; fi
    cat "$own/start.log" >&2
  done
  rm -rf -- "$own"
  rmdir -- "$folder" 2>/dev/null
  return 0
}

# Slurm signals this shell alone (B:) some time before the job ends. The sweep then writes checkpoints and pauses.
stopping=no driver='' head='' workers='' code=1
trap 'stopping=yes; [ -z "$driver" ] || kill -TERM "$driver" 2>/dev/null' TERM

# The head has no CPUs and no GPUs, and runs outside the workers' steps: trials that take too much memory cannot end it.
start_head() {
  local client=()
  python -c 'import grpc' 2>/dev/null && client=(--ray-client-server-port=$((port + 1)))
  private "$folder" || { say "$folder exists and is not ours; remove it, or submit the job again"; return 1; }
  for _ in {1..3}; do  # as for a worker
    ray start --head --block --node-ip-address="$ip" --port="$port" "${client[@]}" --num-cpus=0 --num-gpus=0 \
      --include-dashboard=false --object-store-memory="$object_store" --temp-dir="$folder/h" --min-worker-port=0 \
      --max-worker-port=0 --dashboard-agent-listen-port=0 >"$folder/head.log" 2>&1 &
    head=$!
    while kill -0 "$head" 2>/dev/null; do
      grep -q "Ray runtime started" "$folder/head.log" && return 0
      sleep 0.2
    done
    [ "$stopping" = no ] || break
  done
  say "Ray's head did not start:"
  cat "$folder/head.log" >&2
  return 1
}

# Waits until every machine's worker is there, at most five minutes; goes on with those that are.
wait_for_workers() {
  python - "$address" "$SLURM_JOB_NUM_NODES" 300 <<'PYTHON'
import sys, time, ray

address, wanted, patience = sys.argv[1], int(sys.argv[2]), time.monotonic() + float(sys.argv[3])
ray.init(address=address, log_to_driver=False, logging_level="ERROR")
while True:
    there = sum(node["Alive"] and node["Resources"].get("CPU", 0) > 0 for node in ray.nodes())
    if there >= wanted or time.monotonic() > patience:
        break
    time.sleep(1)
print(f"hpo: {there} of {wanted} machines are there", file=sys.stderr, flush=True)
sys.exit(0 if there else 1)
PYTHON
}

if start_head; then
  srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 \
    --cpus-per-task="$SLURM_CPUS_PER_TASK" --export=ALL --no-kill --kill-on-bad-exit=0 \
    bash -c "$(declare -f private worker); worker" &
  workers=$!
  wait_for_workers &
  driver=$!  # so that a signal ends the waiting too
  while kill -0 "$driver" 2>/dev/null; do wait "$driver"; done
  if wait "$driver"; then
    begin
    code=3
    if [ "$stopping" = no ]; then
      driver=''
      "${command[@]:0:2}" --address "$address" "${command[@]:2}" &
      driver=$!
      [ "$stopping" = no ] || kill -TERM "$driver"
      while kill -0 "$driver" 2>/dev/null; do wait "$driver"; done
      wait "$driver"  # bash keeps the exit code; the wait above may have been cut short by a signal
      code=$?
    fi
  fi
fi

# What ended the sweep decides whether the job starts again: it is done (0) or refused (2), was stopped by `hpo stop` or
# --time (3), by Slurm's signal, no machine answered (4), or its driver or head died.
retry=no
case $code in
  0 | 2) ;;
  3) retry=$stopping ;;
  4) retry=yes ;;
  *) if [ "$stopping" = yes ] || [ "$code" -gt 128 ] || ! kill -0 "$head" 2>/dev/null; then retry=yes; fi ;;
esac

for process in $workers $head; do  # the head last: the workers tell it that they go
  kill -TERM "$process" 2>/dev/null
  while kill -0 "$process" 2>/dev/null; do wait "$process"; done
done
rm -rf -- "$folder"

if [ "$retry" = yes ] && [ "${SLURM_RESTART_COUNT:-0}" -ge "$retries" ]; then
  say "this job has started $((retries + 1)) times; submit it again to go on"
elif [ "$retry" = yes ] && [ "$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T)" = RUNNING ]; then
  say "the job starts again and goes on with the sweep"
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"

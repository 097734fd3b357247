# Before a worker ends: Ray is told that its node leaves. Its trials write checkpoints, and Ray ends the node once they
# have. Kubernetes waits for this script, at most the grace period.
head=$FQ_RAY_IP:${RAY_PORT:-6379}
node=$(cat /proc/[0-9]*/cmdline 2>/dev/null | sed -zn 's/^--node_id=//p' | tr -d '\0')  # Ray's number of this node
there() { (exec 3<>"/dev/tcp/${head/://}") && grep -qsz -- "^--node_id=$node\$" /proc/[0-9]*/cmdline; }

ray drain-node --address="$head" --node-id="$node" --reason=DRAIN_NODE_REASON_PREEMPTION \
  --reason-message="its pod ends" --deadline-remaining-seconds="$seconds"
while there; do sleep 1; done

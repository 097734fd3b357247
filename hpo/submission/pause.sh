# Before the head ends: the sweep writes its checkpoints and pauses. Kubernetes waits for this script, at most the grace
# period. Not by a signal: a deleted RayJob has sent one already, and a second one would stop the sweep without checkpoints.

read -r driver </tmp/hpo-driver && kill -0 "$driver" || exit 0
"${stop[@]}"
while kill -0 "$driver"; do sleep 1; done

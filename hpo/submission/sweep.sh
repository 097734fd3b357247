# Runs on the head of the cluster.
begin
echo "$$" >/tmp/hpo-driver  # for pause.sh; exec keeps the number
exec "${command[@]:0:2}" --address auto "${command[@]:2}"

#!/bin/bash
# Before a worker ends: while the head is there, its trials go on and write checkpoints. Kubernetes waits for this
# script, at most the grace period.
while (exec 3<>"/dev/tcp/$FQ_RAY_IP/${RAY_PORT:-6379}"); do sleep 1; done

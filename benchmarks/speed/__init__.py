"""Speed of training and evaluation, compared with rivals: `python -m benchmarks.speed`, or `make bench`.

A case has two sides: ours and a rival. In a round each side runs in separate processes with one thread each, two at the
same time, as two trials share a machine. The sides alternate, and the result is the ratio within a round. Processes
load and warm up first, then they start their clocks together.
"""

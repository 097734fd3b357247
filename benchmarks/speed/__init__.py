"""How fast the core is, each case against a rival in the same run: `python -m benchmarks.speed`, or `make bench`.

A case has two sides, ours and what it is compared with. Within a round each side runs in processes of its own, one
thread each (two at a time, as two trials share a machine); sides alternate, and what counts is the ratio within a
round. Processes load and warm up first and start their clocks together.
"""

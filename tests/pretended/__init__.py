"""A pretended GPU: tensors that say they are on `cuda:0` and are on the CPU, under a real device's rules.

- What mixes host and device raises.
- A copy to pinned memory lands when the device gets there; until then the host sees poison.
- A pinned source that changes before its copy has passed is a race, and raises.
- What is copied up on a stream aside is poison on the device until that stream gets there.
- Every wait for the device is kept, with its caller, and every operator that would be launched is counted.

When `pretended_gpu` ends, nothing of it is left but a device guard that does nothing. It tells nothing of
speed, nor of how a real device rounds.
"""

"""The decisions of the control plane as pure functions over resources: no I/O, no clock, no randomness of their own.

Operations read from the stores, ask here what follows, and write the result; the custom resources take the same way. What a rule
refuses it refuses with the AWS error that the caller gets.
"""

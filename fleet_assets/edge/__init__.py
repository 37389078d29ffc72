"""What runs in the vehicle: features looked up in a mapped file. Needs numpy and cryptography; numba where there is one."""

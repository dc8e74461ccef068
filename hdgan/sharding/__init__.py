"""Work that the processes share which torchrun has started, on any number of machines.

`environment` reads what torchrun tells a process, without torch. By the `Rendezvous` the processes find each other,
compare what they have, and end together. The `World` divides the work among them and joins what they have found.
"""

"""Both ends write, against each mode that is fixed, in virtual time; ``python -m bench.both``.

``records``: what is written. ``cells``: one device, over links and paces. ``shared``: a machine
that both ends share. ``many``: one base station for many devices.
"""

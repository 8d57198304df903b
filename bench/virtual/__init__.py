"""Both ends' own code over a modelled link, in virtual time: an hour of waiting costs nothing.

``loop`` is the clock, ``link`` the connection, ``pair`` the embedded models with every forward
remembered, ``world`` puts a device and a base station together.
"""

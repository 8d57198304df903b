"""A well-behaved device beside each kind of hostile client, and beside as much work elsewhere.

    python -m bench.hostile [ATTACK...] [--seconds 10] [--json PATH]

The base station with the embedded target has a process of its own, with 1,024 descriptors as a
shell gives them; the device drafts greedily in this one; the attacker is a third process, without
niceness, that begins again whenever it is refused or cut off. Each turn of an attack is followed by
a turn of its control: a process that leaves the base station alone, and burns the CPU seconds that
the attacker was measured to use, 20 ms by 20 ms as the attacker spread them. So what the attacker
costs by standing on the same cores is in both, and what differs is the base station's. (The control
of ``flood-connect`` floods a socket that nobody looks after: see ``attacks.Attack``.) The ratio of
the device's p99 delays, attack to control, is the median over the turns.

Beside it stand, for each attack: the most CPU time of the event loop's thread that one callback of
the base station took, what the log grew by, what its resident memory grew by beyond the control's
once both had warmed up, whether the device lost its connection, the time in which a new device is
greeted while 5,000 connections of the kind are held (from the device's own address, from one other,
and from 250), and the exit code of the base station on SIGTERM in the middle of it. ``poison`` is
measured on seven devices that replay what real ones sent, and by their tokens a second.

An attacker with a token has the default limits. All traffic is on loopback.
"""

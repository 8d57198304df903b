"""What siblings would bring ``topk``; ``python -m bench.siblings``.

``trees``: how they are drawn, and what a target accepts of them.
"""

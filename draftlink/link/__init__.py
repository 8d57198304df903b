"""The radio link: what it carries, what it takes, and a proxy that behaves like one."""

"""The base station: the target model, verification, and the app that serves devices."""

from draftlink.host import torchao

torchao.hush()

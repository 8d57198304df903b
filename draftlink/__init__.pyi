from device_runtime.device import Device as Device
from device_runtime.short import chat as chat
from device_runtime.short import generate as generate
from draftlink.distribution.sampling import Sampling as Sampling

__version__: str

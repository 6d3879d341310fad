"""Options of serving the page. Does not import PyTorch."""

from typing import Annotated

from tyro.conf import arg

from magi_video.fast.engine_name import AskedEngine
from magi_video.fast.precision import Precision
from magi_video.serving.limits import ServingLimits
from magi_video.settings import settings


@settings
class ServeOptions:
    """Address, device and limits of the page."""

    port: int = 8000
    """To listen on; 0 takes a free one."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 lets everyone on the network in: there is no password."""
    allow_name: tuple[str, ...] = ()
    """Names under which the page may be reached besides localhost and addresses, behind a proxy for example."""
    trust_proxy: tuple[str, ...] = ()
    """Addresses or networks of proxies whose X-Forwarded-For is believed; without, all their visitors count as one."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    precision: Precision = "auto"
    """Of the weights; auto takes the quicker one on this machine and says which."""
    engine: AskedEngine = "auto"
    threads: int | None = None
    """CPU threads; if not said, one for a small model, else all cores, as long as the pace holds."""
    limits: Annotated[ServingLimits, arg(name="")] = ServingLimits()
    """Of what visitors may ask for."""

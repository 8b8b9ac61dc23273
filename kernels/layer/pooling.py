"""What to pool with: the two descriptions a caller hands to `conv_relu_pool`."""

from dataclasses import astuple, dataclass
from functools import cached_property

Size = int | tuple[int, ...]


class _Pooling:
    """What both descriptions share."""

    @cached_property
    def kinds(self) -> tuple[type, ...]:
        """Types of the fields and of what is in them: True and 1.0 equal 1, and are refused where 1 is not."""
        fields = astuple(self)  # type: ignore[call-overload]
        inner = [type(v) for field in fields if isinstance(field, tuple) for v in field]
        return (*[type(field) for field in fields], *inner)


@dataclass(frozen=True)
class MaxPool(_Pooling):
    """Max pooling as `torch.nn.functional.max_pool{1,2,3}d` does it.

    `kernel`, `stride`, `padding` and `dilation` are in pixels of the convolution's output, one number for all
    spatial dimensions or one each; `stride=None` means the kernel size. Padding counts as minus infinity.
    With `ceil_mode` a last, partly covered window is kept unless it would start in the padding.
    """

    kernel: Size
    stride: Size | None = None
    padding: Size = 0
    dilation: Size = 1
    ceil_mode: bool = False


@dataclass(frozen=True)
class AvgPool(_Pooling):
    """Average pooling as `torch.nn.functional.avg_pool{1,2,3}d` does it.

    Sizes as in `MaxPool`. With `count_include_pad` the divisor counts padding pixels (which add zero),
    without it only the pixels that exist.
    """

    kernel: Size
    stride: Size | None = None
    padding: Size = 0
    ceil_mode: bool = False
    count_include_pad: bool = True


Pool = MaxPool | AvgPool | None

"""The kernels, in Triton. Pictures are (B, P, C): pixels with their channels side by side (``channels_last``).

Sums are of blocks first, then of the blocks in a fixed order: the same bits each time. Means and squares are joined as
Chan et al. 1979 (STAN-CS-79-773) have it, so that nothing is lost where the mean is far from zero.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs
# No "from __future__ import annotations": Triton reads what is annotated
import triton
import triton.language as tl


@triton.jit
def moments(x, means, squares, pixels, channels, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Per block of pixels and channel: the mean, and the sum of squared distances from it."""
    block, picture = tl.program_id(0), tl.program_id(2).to(tl.int64)
    rows = block * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (rows < pixels)[:, None] & (columns < channels)[None, :]
    places = picture * pixels * channels + rows[:, None] * channels + columns[None, :]
    values = tl.load(x + places, mask=inside, other=0.0).to(tl.float32)
    mean = tl.sum(values, 0) / tl.minimum(pixels - block * ROWS, ROWS)
    away = tl.where(inside, values - mean[None, :], 0.0)
    to = (picture * tl.num_programs(0) + block) * channels + columns
    tl.store(means + to, mean, mask=columns < channels)
    tl.store(squares + to, tl.sum(away * away, 0), mask=columns < channels)


@triton.jit
def _sums_of_blocks(first, columns, channels, blocks, width, AT_ONCE: tl.constexpr):
    """Numbers of some blocks, and where the sums of this group's channels over each of them lie."""
    group, picture = tl.program_id(0), tl.program_id(1)
    rows = first + tl.arange(0, AT_ONCE)
    inside = (rows < blocks)[:, None] & (columns < width)[None, :]
    return rows, inside, (picture * blocks + rows[:, None]) * channels + group * width + columns[None, :]


@triton.jit
def join_moments(
    means, squares, mean, scale, pixels, channels, blocks, width, eps,
    ROWS: tl.constexpr, AT_ONCE: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Per group of ``width`` channels: its mean, and the inverse of its standard deviation."""
    group, picture = tl.program_id(0), tl.program_id(1)
    columns = tl.arange(0, WIDTH)
    total = tl.zeros([WIDTH], tl.float32)
    for first in range(0, blocks, AT_ONCE):
        rows, inside, places = _sums_of_blocks(first, columns, channels, blocks, width, AT_ONCE)
        counts = tl.minimum(pixels - rows * ROWS, ROWS).to(tl.float32)
        total += tl.sum(tl.load(means + places, mask=inside, other=0.0) * counts[:, None], 0)
    middle = tl.sum(total, 0) / (pixels * width)
    total = tl.zeros([WIDTH], tl.float32)
    for first in range(0, blocks, AT_ONCE):
        rows, inside, places = _sums_of_blocks(first, columns, channels, blocks, width, AT_ONCE)
        counts = tl.minimum(pixels - rows * ROWS, ROWS).to(tl.float32)
        away = tl.load(means + places, mask=inside, other=0.0) - middle
        spread = tl.load(squares + places, mask=inside, other=0.0) + away * away * counts[:, None]
        total += tl.sum(tl.where(inside, spread, 0.0), 0)
    at = picture * tl.num_programs(0) + group
    tl.store(mean + at, middle)
    tl.store(scale + at, tl.rsqrt(tl.sum(total, 0) / (pixels * width) + eps))


@triton.jit
def normalise(
    x, y, mean, scale, weight, bias, pixels, channels, groups, width,
    ACTIVATE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The normalised values; with ``ACTIVATE`` SiLU of them."""
    picture = tl.program_id(2).to(tl.int64)
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (rows < pixels)[:, None] & (columns < channels)[None, :]
    places = picture * pixels * channels + rows[:, None] * channels + columns[None, :]
    group = picture * groups + columns // width
    exists = columns < channels
    middle, inverse = tl.load(mean + group, mask=exists), tl.load(scale + group, mask=exists)
    factor = tl.load(weight + columns, mask=exists).to(tl.float32)
    shift = tl.load(bias + columns, mask=exists).to(tl.float32)
    values = tl.load(x + places, mask=inside, other=0.0).to(tl.float32)
    values = (values - middle[None, :]) * inverse[None, :] * factor[None, :] + shift[None, :]
    if ACTIVATE:
        values = values * tl.sigmoid(values)
    tl.store(y + places, values.to(y.dtype.element_ty), mask=inside)


@triton.jit
def _before_norm(
    x, gradient, mean, scale, weight, bias, places, inside, columns, group, exists, ACTIVATE: tl.constexpr
):
    """Normalised values, and the gradient of them, for a block."""
    middle, inverse = tl.load(mean + group, mask=exists), tl.load(scale + group, mask=exists)
    factor = tl.load(weight + columns, mask=exists).to(tl.float32)
    values = tl.load(x + places, mask=inside, other=0.0).to(tl.float32)
    given = tl.load(gradient + places, mask=inside, other=0.0).to(tl.float32)
    values = tl.where(inside, (values - middle[None, :]) * inverse[None, :], 0.0)
    if ACTIVATE:
        shift = tl.load(bias + columns, mask=exists).to(tl.float32)
        out = values * factor[None, :] + shift[None, :]
        gate = tl.sigmoid(out)
        given = given * gate * (1 + out * (1 - gate))
    return values, tl.where(inside, given * factor[None, :], 0.0), inverse


@triton.jit
def gradient_sums(
    x, gradient, mean, scale, weight, bias, plain, along, pixels, channels, groups, width,
    ACTIVATE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Per block of pixels and channel: sums of the normalised values' gradient, alone and times these values."""
    block, picture = tl.program_id(0), tl.program_id(2).to(tl.int64)
    rows = block * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    exists = columns < channels
    inside = (rows < pixels)[:, None] & exists[None, :]
    places = picture * pixels * channels + rows[:, None] * channels + columns[None, :]
    group = picture * groups + columns // width
    values, given, _ = _before_norm(
        x, gradient, mean, scale, weight, bias, places, inside, columns, group, exists, ACTIVATE
    )
    to = (picture * tl.num_programs(0) + block) * channels + columns
    tl.store(plain + to, tl.sum(given, 0), mask=exists)
    tl.store(along + to, tl.sum(given * values, 0), mask=exists)


@triton.jit
def join_gradient_sums(
    plain, along, mean_plain, mean_along, pixels, channels, blocks, width,
    AT_ONCE: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Per group: the means of both."""
    group, picture = tl.program_id(0), tl.program_id(1)
    columns = tl.arange(0, WIDTH)
    first_total, second_total = tl.zeros([WIDTH], tl.float32), tl.zeros([WIDTH], tl.float32)
    for first in range(0, blocks, AT_ONCE):
        _, inside, places = _sums_of_blocks(first, columns, channels, blocks, width, AT_ONCE)
        first_total += tl.sum(tl.load(plain + places, mask=inside, other=0.0), 0)
        second_total += tl.sum(tl.load(along + places, mask=inside, other=0.0), 0)
    at = picture * tl.num_programs(0) + group
    tl.store(mean_plain + at, tl.sum(first_total, 0) / (pixels * width))
    tl.store(mean_along + at, tl.sum(second_total, 0) / (pixels * width))


@triton.jit
def normalise_gradient(
    x, gradient, to, mean, scale, weight, bias, mean_plain, mean_along, pixels, channels, groups, width,
    ACTIVATE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The gradient of what was normalised."""
    picture = tl.program_id(2).to(tl.int64)
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    exists = columns < channels
    inside = (rows < pixels)[:, None] & exists[None, :]
    places = picture * pixels * channels + rows[:, None] * channels + columns[None, :]
    group = picture * groups + columns // width
    values, given, inverse = _before_norm(
        x, gradient, mean, scale, weight, bias, places, inside, columns, group, exists, ACTIVATE
    )
    level, tilt = tl.load(mean_plain + group, mask=exists), tl.load(mean_along + group, mask=exists)
    given = (given - level[None, :] - values * tilt[None, :]) * inverse[None, :]
    tl.store(to + places, given.to(to.dtype.element_ty), mask=inside)


@triton.jit
def gate(both, to, width, COLUMNS: tl.constexpr):
    """Of rows (2 W) the first half times GELU of the second (Hendrycks and Gimpel 2016, 1606.08415)."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = columns < width
    value = tl.load(both + row * 2 * width + columns, mask=inside, other=0.0).to(tl.float32)
    gate = tl.load(both + row * 2 * width + width + columns, mask=inside, other=0.0).to(tl.float32)
    below = 0.5 + 0.5 * tl.erf(gate * 0.7071067811865476)  # the normal distribution's share below
    tl.store(to + row * width + columns, (value * gate * below).to(to.dtype.element_ty), mask=inside)


@triton.jit
def gate_gradient(both, gradient, to, width, COLUMNS: tl.constexpr):
    """The gradient of both halves, as rows (2 W)."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = columns < width
    value = tl.load(both + row * 2 * width + columns, mask=inside, other=0.0).to(tl.float32)
    gate = tl.load(both + row * 2 * width + width + columns, mask=inside, other=0.0).to(tl.float32)
    given = tl.load(gradient + row * width + columns, mask=inside, other=0.0).to(tl.float32)
    below = 0.5 + 0.5 * tl.erf(gate * 0.7071067811865476)
    slope = below + gate * 0.3989422804014327 * tl.exp(-0.5 * gate * gate)
    dtype = to.dtype.element_ty
    tl.store(to + row * 2 * width + columns, (given * gate * below).to(dtype), mask=inside)
    tl.store(to + row * 2 * width + width + columns, (given * value * slope).to(dtype), mask=inside)


@triton.jit
def _whole_rows(rows, width, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """Numbers of a block's rows and columns, which of these there are, and where its values lie."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, WIDTH)
    exists = columns < width
    inside = (row < rows)[:, None] & exists[None, :]
    return row, columns, exists, inside, row[:, None] * width + columns[None, :]


@triton.jit
def add_and_normalise(
    x, more, total, y, mean, scale, weight, bias, rows, width, eps,
    ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Sums of rows (W), and these sums normalised (layer normalisation; Ba et al. 2016, 1607.06450)."""
    row, columns, exists, inside, places = _whole_rows(rows, width, ROWS, WIDTH)
    values = tl.load(x + places, mask=inside, other=0.0).to(tl.float32)
    values += tl.load(more + places, mask=inside, other=0.0).to(tl.float32)
    rounded = values.to(total.dtype.element_ty)
    tl.store(total + places, rounded, mask=inside)
    values = rounded.to(tl.float32)
    middle = tl.sum(values, 1) / width
    away = tl.where(inside, values - middle[:, None], 0.0)
    inverse = tl.rsqrt(tl.sum(away * away, 1) / width + eps)
    factor = tl.load(weight + columns, mask=exists, other=0.0).to(tl.float32)
    shift = tl.load(bias + columns, mask=exists, other=0.0).to(tl.float32)
    values = away * inverse[:, None] * factor[None, :] + shift[None, :]
    tl.store(y + places, values.to(y.dtype.element_ty), mask=inside)
    tl.store(mean + row, middle, mask=row < rows)
    tl.store(scale + row, inverse, mask=row < rows)


@triton.jit
def add_and_normalise_gradient(
    total, of_total, of_y, to, mean, scale, weight, rows, width,
    ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """The gradient of both terms: that of the sum, and that of the normalised sum."""
    row, columns, exists, inside, places = _whole_rows(rows, width, ROWS, WIDTH)
    middle = tl.load(mean + row, mask=row < rows, other=0.0)
    inverse = tl.load(scale + row, mask=row < rows, other=0.0)
    factor = tl.load(weight + columns, mask=exists, other=0.0).to(tl.float32)
    values = tl.load(total + places, mask=inside, other=0.0).to(tl.float32)
    values = tl.where(inside, (values - middle[:, None]) * inverse[:, None], 0.0)
    given = tl.load(of_y + places, mask=inside, other=0.0).to(tl.float32) * factor[None, :]
    level, tilt = tl.sum(given, 1) / width, tl.sum(given * values, 1) / width
    given = (given - level[:, None] - values * tilt[:, None]) * inverse[:, None]
    given += tl.load(of_total + places, mask=inside, other=0.0).to(tl.float32)
    tl.store(to + places, given.to(to.dtype.element_ty), mask=inside)


@triton.jit
def add_with_bias(x, more, bias, to, count, channels, COUNT: tl.constexpr):
    """Two pictures' sum, and a value for each channel."""
    places = tl.program_id(0).to(tl.int64) * COUNT + tl.arange(0, COUNT)
    inside = places < count
    values = tl.load(x + places, mask=inside).to(tl.float32) + tl.load(more + places, mask=inside).to(tl.float32)
    values += tl.load(bias + places % channels, mask=inside).to(tl.float32)
    tl.store(to + places, values.to(to.dtype.element_ty), mask=inside)

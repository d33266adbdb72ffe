"""Letters once more, slowly: plain whole numbers and fractions, one value after the other, from docs/letters.md alone.

Nothing is taken from `uge.keys.letter`. Images are nested lists [channel][row][column] of whole numbers.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from math import floor

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

Image = list[list[list[int]]]


def key_of(secret: bytes) -> bytes:
    """HKDF-SHA256 (RFC 5869) without salt, 32 bytes: one round of its expansion."""
    extracted = hmac.digest(bytes(32), secret, "sha256")
    return hmac.digest(extracted, b"uge/letter/1" + b"\x01", "sha256")


def layout(shape: tuple[int, int, int], epsilon: int) -> dict[str, int]:
    """Steps and reach of a letter for images of `shape`."""
    channels, height, width = shape
    most = (epsilon - 1) // 2
    colour = channels > 1 and most > 1
    nodes = channels * ((height + 3) // 4) * ((width + 3) // 4) if colour else 0
    room = channels * height * width // 8 * 8 - 96 - 128
    for step in (1, 2, 3, 4):
        digits = ((height + step - 1) // step) * ((width + step - 1) // step) + nodes
        bits = 8 + digits // 27 * 63
        while 2 ** (bits - 8 - digits // 27 * 63) < 5 ** (digits % 27):
            bits += 1
        if bits <= room:
            return {"step": step, "node_step": 4 if colour else 0, "reach": most}
    raise ValueError("no room for a letter")


def value(level: int, reach: int) -> int:
    """reach level / 2, halves rounded away from zero."""
    size = floor(Fraction(reach * abs(level), 2) + Fraction(1, 2))
    return size if level >= 0 else -size


def weight(pixel: int, node: int, nodes: int, step: int) -> Fraction:
    """How much a node counts at a pixel, along one axis; pixels beyond the outermost nodes have those alone."""
    place = min(max(Fraction(2 * pixel + 1, 2 * step) - Fraction(1, 2), Fraction(0)), Fraction(nodes - 1))
    return max(Fraction(0), 1 - abs(place - node))


@lru_cache(maxsize=2**16)
def reached(row: int, column: int, grid: tuple[int, int], step: int) -> list[tuple[int, int, Fraction]]:
    """The nodes that count at a pixel, with their weights."""
    found = []
    for i in range(max(0, row // step - 1), min(grid[0], row // step + 2)):
        for j in range(max(0, column // step - 1), min(grid[1], column // step + 2)):
            share = weight(row, i, grid[0], step) * weight(column, j, grid[1], step)
            if share:
                found.append((i, j, share))
    return found


def enlarged(levels: list[list[int]], reach: int, step: int, size: tuple[int, int]) -> list[list[int]]:
    grid = len(levels), len(levels[0])
    return [
        [
            floor(
                sum(share * value(levels[i][j], reach) for i, j, share in reached(row, column, grid, step))
                + Fraction(1, 2)
            )
            for column in range(size[1])
        ]
        for row in range(size[0])
    ]


def drawn_in(
    levels: list[list[int]], reach: int, step: int, size: tuple[int, int], fits: Callable[[int, int, int], bool]
) -> list[list[int]]:
    """Levels drawn toward zero until each one's value fits every pixel that it reaches: fits(row, column, value)."""
    grid = len(levels), len(levels[0])
    result = [list(row) for row in levels]
    for row in range(size[0]):
        for column in range(size[1]):
            for i, j, _ in reached(row, column, grid, step):
                while not fits(row, column, value(result[i][j], reach)):
                    result[i][j] -= 1 if result[i][j] > 0 else -1
    return result


def clamped(shift: int, most: int) -> int:
    return min(max(shift, -most), most)


def seal(image: Image, field: list[list[int]], nodes: Image, secret: bytes, epsilon: int, noise: bytes) -> Image:
    """x_u of one image; `noise` is the nonce (12 bytes) and a byte whose upper bits are left over."""
    if len(image) > 1 and all(channel == image[0] for channel in image):
        return seal(image[:1], field, nodes, secret, epsilon, noise) * len(image)
    shape = len(image), len(image[0]), len(image[0][0])
    size, plan = shape[1:], layout(shape, epsilon)
    h = [[[x // 2 for x in row] for row in channel] for channel in image]
    colour = [[[0] * size[1] for _ in range(size[0])] for _ in image]
    bounded_nodes = []
    for c, grid in enumerate(nodes):

        def node_fits(row: int, column: int, value: int, channel: list[list[int]] = h[c]) -> bool:
            return 0 <= channel[row][column] + value <= 127

        bounded_nodes.append(drawn_in(grid, plan["reach"], 4, size, node_fits))
        colour[c] = enlarged(bounded_nodes[c], plan["reach"], 4, size)

    def moved(c: int, row: int, column: int, value: int) -> int:
        return h[c][row][column] + clamped(value + colour[c][row][column], plan["reach"])

    def field_fits(row: int, column: int, value: int) -> bool:
        return all(0 <= moved(c, row, column, value) <= 127 for c in range(shape[0]))

    field = drawn_in(field, plan["reach"], plan["step"], size, field_fits)
    gray = enlarged(field, plan["reach"], plan["step"], size)
    carrier = [[[moved(c, i, j, gray[i][j]) for j in range(size[1])] for i in range(size[0])] for c in range(shape[0])]
    assert all(0 <= v <= 127 for channel in carrier for row in channel for v in row)

    digits = [level + 2 for row in field for level in row]
    digits += [level + 2 for grid in bounded_nodes for row in grid for level in row]
    bits = f"{epsilon:08b}"
    for begin in range(0, len(digits), 27):
        word = 0
        for digit in digits[begin : begin + 27]:
            word = 5 * word + digit
        full = len(digits) - begin >= 27
        width = 63 if full else (5 ** (len(digits) - begin) - 1).bit_length()
        bits += f"{word:0{width}b}"
    values = shape[0] * shape[1] * shape[2]
    size_in_bytes = values // 8 - 12 - 16
    plain = int(bits.ljust(8 * size_in_bytes, "0"), 2).to_bytes(size_in_bytes, "big")
    left = f"{noise[12]:08b}"[: values % 8]
    cipher = Cipher(algorithms.AES256(key_of(secret)), modes.GCM(noise[:12])).encryptor()
    cipher.authenticate_additional_data(tied_to(carrier, left))
    letter = noise[:12] + cipher.update(plain) + cipher.finalize() + cipher.tag
    b = iter("".join(f"{byte:08b}" for byte in letter) + left)
    return [[[2 * v + int(next(b)) for v in row] for row in channel] for channel in carrier]


def tied_to(carrier: Image, left: str) -> bytes:
    shape = len(carrier), len(carrier[0]), len(carrier[0][0])
    content = bytes(v for channel in carrier for row in channel for v in row)
    if left:
        content += bytes([int(left.ljust(8, "0"), 2)])
    return b"uge/letter/1" + b"".join(n.to_bytes(4, "big") for n in shape) + hashlib.sha256(content).digest()


def view(copy: Image, secret: bytes) -> Image | None:
    """2 floor(x / 2) of the original of a copy; None where the letter does not open."""
    if len(copy) > 1 and all(channel == copy[0] for channel in copy):
        gray = view(copy[:1], secret)
        return gray and gray * len(copy)
    shape = len(copy), len(copy[0]), len(copy[0][0])
    flat = [x for channel in copy for row in channel for x in row]
    whole = len(flat) // 8
    plane = "".join(str(x % 2) for x in flat)
    letter = bytes(int(plane[8 * i : 8 * i + 8], 2) for i in range(whole))
    carrier = [[[x // 2 for x in row] for row in channel] for channel in copy]
    try:
        cipher = Cipher(algorithms.AES256(key_of(secret)), modes.GCM(letter[:12], letter[-16:])).decryptor()
        cipher.authenticate_additional_data(tied_to(carrier, plane[8 * whole :]))
        plain = cipher.update(letter[12:-16]) + cipher.finalize()
    except (InvalidTag, ValueError):
        return None
    plan = layout(shape, plain[0])
    step, node_step = plan["step"], plan["node_step"]
    grid = -(-shape[1] // step), -(-shape[2] // step)
    node_grid = (-(-shape[1] // 4), -(-shape[2] // 4)) if node_step else (0, 0)
    count = grid[0] * grid[1] + (shape[0] * node_grid[0] * node_grid[1] if node_step else 0)
    bits = "".join(f"{byte:08b}" for byte in plain)[8:]
    levels: list[int] = []
    while len(levels) < count:
        digits = min(27, count - len(levels))
        width = 63 if digits == 27 else (5**digits - 1).bit_length()
        word, bits = int(bits[:width], 2), bits[width:]
        levels += [word // 5**place % 5 - 2 for place in reversed(range(digits))]
    rows = iter(levels)
    field = [[next(rows) for _ in range(grid[1])] for _ in range(grid[0])]
    gray = enlarged(field, plan["reach"], step, shape[1:])
    result = []
    for c in range(shape[0]):
        colour = [[0] * shape[2] for _ in range(shape[1])]
        if node_step:
            nodes = [[next(rows) for _ in range(node_grid[1])] for _ in range(node_grid[0])]
            colour = enlarged(nodes, plan["reach"], node_step, shape[1:])
        result.append(
            [
                [2 * (carrier[c][i][j] - clamped(gray[i][j] + colour[i][j], plan["reach"])) for j in range(shape[2])]
                for i in range(shape[1])
            ]
        )
    return result

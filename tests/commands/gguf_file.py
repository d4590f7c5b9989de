# SPDX-License-Identifier: Apache-2.0
"""GGUF files that a test takes apart, changes and puts together again.

    file = Gguf.read("model.gguf")
    file.keys["llama.expert_count"] = (U32, 500)
    file.tensors["output.weight"].data = ...
    file.write("bad.gguf")

Nothing is checked on the way out: that is what it is for.
"""
import struct

U8, I8, U16, I16, U32, I32, F32, BOOL, TEXT, LIST, U64, I64, F64 = range(13)
FORMATS = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "?",
           U64: "Q", I64: "q", F64: "d"}
TYPE_F32, TYPE_I32 = 0, 26
ALIGNMENT = 32


class Reader:
    """Bytes and how far they have been read."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, layout):
        size = struct.calcsize("<" + layout)
        values = struct.unpack("<" + layout, self.data[self.at:self.at + size])
        self.at += size
        return values[0] if len(values) == 1 else values

    def text(self):
        size = self.take("Q")
        self.at += size
        return self.data[self.at - size:self.at].decode("utf-8", "surrogateescape")

    def value(self, kind):
        if kind == TEXT:
            return self.text()
        if kind == LIST:
            item, count = self.take("IQ")
            return item, [self.value(item) for _ in range(count)]
        return self.take(FORMATS[kind])


def pack_text(text):
    data = text.encode("utf-8", "surrogateescape")
    return struct.pack("<Q", len(data)) + data


def pack(kind, value):
    if kind == TEXT:
        return pack_text(value)
    if kind == LIST:
        item, values = value
        return struct.pack("<IQ", item, len(values)) + b"".join(pack(item, x) for x in values)
    return struct.pack("<" + FORMATS[kind], value)


class Tensor:
    """Its sizes, fastest first, its type and its bytes."""

    def __init__(self, sizes, kind, data):
        self.sizes, self.kind, self.data = list(sizes), kind, bytes(data)

    def set_float(self, index, value):
        self.data = (self.data[:4 * index] + struct.pack("<f", value)
                     + self.data[4 * index + 4:])


class Gguf:
    """keys: name -> (kind, value); tensors: name -> Tensor, both in the file's order."""

    def __init__(self, keys=None, tensors=None):
        self.keys, self.tensors = dict(keys or {}), dict(tensors or {})

    @classmethod
    def read(cls, path):
        """A file whose tensors are of 32-bit floats."""
        with open(path, "rb") as stream:
            reader = Reader(stream.read())
        _, _, tensor_count, key_count = reader.take("4sIQQ")
        file = cls()
        for _ in range(key_count):
            name, kind = reader.text(), reader.take("I")
            file.keys[name] = (kind, reader.value(kind))
        places = []
        for _ in range(tensor_count):
            name, dimensions = reader.text(), reader.take("I")
            sizes = [reader.take("Q") for _ in range(dimensions)]
            places.append((name, sizes, *reader.take("IQ")))
        start = -(-reader.at // ALIGNMENT) * ALIGNMENT
        for name, sizes, kind, offset in places:
            size = 4
            for one in sizes:
                size *= one
            file.tensors[name] = Tensor(sizes, kind,
                                        reader.data[start + offset:start + offset + size])
        return file

    def bytes(self):
        head = struct.pack("<4sIQQ", b"GGUF", 3, len(self.tensors), len(self.keys))
        for name, (kind, value) in self.keys.items():
            head += pack_text(name) + struct.pack("<I", kind) + pack(kind, value)
        data, size = [], 0
        for name, tensor in self.tensors.items():
            head += pack_text(name) + struct.pack("<I", len(tensor.sizes))
            head += struct.pack("<%dQ" % len(tensor.sizes), *tensor.sizes)
            head += struct.pack("<IQ", tensor.kind, size)
            data += [tensor.data, b"\0" * (-len(tensor.data) % ALIGNMENT)]
            size += len(tensor.data) + len(data[-1])
        return b"".join([head, b"\0" * (-len(head) % ALIGNMENT), *data])

    def write(self, path):
        with open(path, "wb") as stream:
            stream.write(self.bytes())

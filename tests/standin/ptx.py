"""Turns the PTX of one module into C, a function for each kernel that is asked for: how the stand-in runs kernels.

    python3 ptx.py MODULE.ptx KERNEL > kernel.c

Registers are plain bits; each instruction reads them as the types that it names. A thread is one call; what waits for
other threads (barriers, shuffles) calls back into the stand-in. An instruction that is not known is an error, never a guess.
"""

import re
import sys

SIGNED = {"s8": "int8_t", "s16": "int16_t", "s32": "int32_t", "s64": "int64_t"}
PLAIN = {
    "b8": "uint8_t", "b16": "uint16_t", "b32": "uint32_t", "b64": "uint64_t",
    "u8": "uint8_t", "u16": "uint16_t", "u32": "uint32_t", "u64": "uint64_t",
}
FLOAT = {"f32": "float", "f64": "double"}
TYPES = {**SIGNED, **PLAIN, **FLOAT}
SPECIAL = {"tid": "tid", "ntid": "ntid", "ctaid": "ctaid", "nctaid": "nctaid"}
COMPARE = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "lo": "<", "ls": "<=", "hi": ">", "hs": ">="}
NARROW = {"bf16": ("bf16_of", "of_bf16"), "f16": ("f16_of", "of_f16")}

HEAD = r"""
#include <math.h>
#include <stdint.h>
#include <string.h>
typedef struct { uint32_t tid[3], ntid[3], ctaid[3], nctaid[3]; uint8_t *shared; } Thread;
void standin_barrier(void);
uint32_t standin_shuffle(uint32_t value, uint32_t from);
static inline float f32(uint32_t b) { float f; memcpy(&f, &b, 4); return f; }
static inline uint32_t from_f32(float f) { uint32_t b; memcpy(&b, &f, 4); return b; }
static inline double f64(uint64_t b) { double f; memcpy(&f, &b, 8); return f; }
static inline uint64_t from_f64(double f) { uint64_t b; memcpy(&b, &f, 8); return b; }
static inline float of_bf16(uint16_t b) { return f32((uint32_t)b << 16); }
static inline uint16_t bf16_of(float f) {
    uint32_t b = from_f32(f);
    if (isnan(f)) return 0x7fff;
    return (uint16_t)((b + 0x7fff + ((b >> 16) & 1)) >> 16);
}
static inline float of_f16(uint16_t b) { _Float16 h; memcpy(&h, &b, 2); return (float)h; }
static inline uint16_t f16_of(float f) { _Float16 h = (_Float16)f; uint16_t b; memcpy(&b, &h, 2); return b; }
#define LOAD(type, at) ({ type v; memcpy(&v, (void *)(uintptr_t)(at), sizeof v); v; })
#define STORE(type, at, value) ({ type v = (value); memcpy((void *)(uintptr_t)(at), &v, sizeof v); })
"""


class Kernel:
    def __init__(self, name, params, body, shared):
        self.name, self.shared = name, shared
        params = [p for p in params.split(",") if p.strip()]
        self.params = [p.split()[-1].split("[")[0] for p in params]
        self.sizes = [size_of(p) for p in params]
        self.local, self.registers = {}, {}
        self.lines = [self.line(text) for text in statements(body)]

    def code(self):
        names = {"pred": "uint8_t", "b16": "uint16_t", "b32": "uint32_t", "b64": "uint64_t"}
        out = [f"void {self.name}(void **params, Thread *t) {{"]
        for prefix, (kind, count) in self.registers.items():
            width = {"s": "b", "u": "b", "f": "b"}.get(kind[0], kind[0]) + kind[1:]
            each = [f"r_{prefix}{i}" for i in range(count)] if count else [f"r_{prefix}"]
            out.append(f"  {names[width]} {', '.join(f'{name} = 0' for name in each)};")
        for name, size in self.local.items():
            out.append(f"  uint8_t local_{name}[{size}];")
        return "\n".join(out + [line for line in self.lines if line] + ["}"])

    def line(self, text):
        if text.endswith(":"):
            return f"{label(text[:-1])}: ;"
        if text.startswith(".reg"):
            kind, prefix, count = re.match(r"\.reg \.(\w+)\s+%?(\w+?)(?:<(\d+)>)?$", text).groups()
            self.registers[prefix] = (kind, int(count or 0))
            return ""
        if text.startswith(".local"):
            name, size = re.search(r"(\w+)\[(\d+)\]", text).groups()
            self.local[name] = int(size)
            return ""
        # The arguments of a call: only the end of a failed assertion is called, and needs none.
        if text.startswith((".loc", ".pragma", ".shared", ".param", "st.param")):
            return ""
        if text.startswith("call"):
            if "__assertfail" not in text:
                raise SystemExit(f"{self.name}: {text} is not known")
            return "  __builtin_trap();"
        guard = re.match(r"@(!?)%(\w+)\s+(.*)", text)
        if guard:
            return f"  if ({guard[1]}r_{guard[2]}) {{ {self.line(guard[3]).strip()} }}"
        return "  " + self.operation(*(text.split(None, 1) + [""])[:2])

    # ---- operands

    def value(self, text, kind):
        """An operand as a C expression of the type `kind`."""
        text = text.strip()
        if text.startswith("0f"):
            bits = f"0x{text[2:]}u"
        elif text.startswith("0d"):
            bits = f"0x{text[2:]}ull"
        elif text.startswith("%"):
            parts = text[1:].split(".")
            if len(parts) == 2 and parts[0] in SPECIAL:
                return f"(({TYPES[kind]})t->{SPECIAL[parts[0]]}[{'xyz'.index(parts[1])}])"
            if text == "%laneid":
                return "(t->tid[0] % 32)"
            bits = register(parts[0])
        elif re.match(r"-?\d|0x", text):
            bits = f"{text}{'ll' if kind.endswith('64') else ''}"
        else:
            bits = self.address(text)
        if kind in FLOAT:
            return f"{kind}({bits})"
        return bits if kind == "pred" else f"(({TYPES[kind]})({bits}))"

    def address(self, text):
        """Where a name or [a + b] lies."""
        text = text.strip().strip("[]")
        base, plus, offset = re.match(r"([%\w$]+)\s*(\+)?\s*(-?\w+)?", text).groups()
        if base in self.params:
            at = f"(uintptr_t)params[{self.params.index(base)}]"
        elif base in self.local:
            at = f"(uintptr_t)local_{base}"
        elif base in self.shared:
            at = f"{self.shared[base]}"
        elif base.startswith("%"):
            at = register(base)
        elif base.startswith(("$str", "__unnamed")):
            at = "0"
        else:
            raise SystemExit(f"{self.name}: what is {text}?")
        return f"({at} + {offset})" if plus else f"({at})"

    def place(self, text, words):
        """Where a load or a store goes; in shared memory places are counted from its beginning, in 32 bits."""
        at = self.address(text)
        return f"((uintptr_t)t->shared + (uint32_t)({at}))" if words[1].startswith("shared") else at

    def put(self, target, kind, value):
        return f"{register(target)} = {f'from_{kind}({value})' if kind in FLOAT else value};"

    # ---- instructions

    def operation(self, name, operands):
        words = name.split(".")
        what, kind = words[0], words[-1]
        args = split(operands)
        rounding = {"rn", "rz", "rm", "rp", "rni", "rzi", "rmi", "rpi"}
        if what == "ret" or what == "exit":
            return "return;"
        if what == "bra":
            return f"goto {label(args[0])};"
        if what in ("bar", "barrier"):
            return "standin_barrier();"
        if what == "shfl":
            target = args[0].split("|")
            lane = self.value(args[2], "u32")
            source = {
                "bfly": f"(t->tid[0] % 32) ^ {lane}",
                "idx": lane,
                "down": f"(t->tid[0] % 32) + {lane} > 31 ? t->tid[0] % 32 : (t->tid[0] % 32) + {lane}",
            }[words[2]]
            found = self.put(target[0], "b32", f"standin_shuffle({self.value(args[1], 'b32')}, {source})")
            return found + (f" {register(target[1])} = 1;" if len(target) > 1 else "")
        if what in ("ld", "ldu"):
            return self.load(words, args)
        if what == "st":
            return self.store(words, args)
        if what == "cvta" and "shared" in words:
            raise SystemExit(f"{self.name}: {name} is not known")
        if what == "cvta":
            return self.put(args[0], "u64", self.value(args[1], "u64"))
        if what == "mov":
            if args[1].strip().startswith("{") or args[0].strip().startswith("{"):
                return self.packed(args, kind)
            return self.put(args[0], kind, self.value(args[1], kind))
        if what == "cvt":
            kinds = [w for w in words[1:] if w in TYPES or w in NARROW]
            return self.convert(args, kinds[0], kinds[1], [w for w in words if w in rounding], "sat" in words)
        if what == "setp":
            return self.compare(words, args)
        if what == "selp":
            a, b = (self.value(arg, kind) for arg in args[1:3])
            return self.put(args[0], kind, f"({self.value(args[3], 'pred')} ? {a} : {b})")
        if kind == "pred":
            sign = {"and": "&", "or": "|", "xor": "^", "not": "!"}[what]
            inputs = [self.value(arg, "pred") for arg in args[1:]]
            return f"{register(args[0])} = {f'!{inputs[0]}' if what == 'not' else f' {sign} '.join(inputs)};"
        if kind in NARROW:
            to, of = NARROW[kind]
            inputs = [f"{of}({self.value(arg, 'u16')})" for arg in args[1:]]
            return f"{register(args[0])} = {to}({self.arithmetic(what, words, 'f32', inputs)});"
        inputs = [self.value(arg, kind) for arg in args[1:]]
        if what == "shl" or what == "shr":
            inputs[1] = self.value(args[2], "u32")
        if "wide" in words and what in ("mul", "mad"):
            double = kind[0] + str(2 * int(kind[1:]))
            product = f"(({TYPES[double]}){inputs[0]} * ({TYPES[double]}){inputs[1]})"
            if what == "mad":
                product = f"({product} + {self.value(args[3], double)})"
            return self.put(args[0], double, product)
        return self.put(args[0], kind, self.arithmetic(what, words, kind, inputs))

    def arithmetic(self, what, words, kind, inputs):
        a, b, c = (inputs + [None, None])[:3]
        real = kind in FLOAT
        f = "f" if kind == "f32" else ""
        if what in ("mul", "mad") and "hi" in words:
            wide = "__int128" if kind[0] == "s" else "unsigned __int128"
            high = f"(({TYPES[kind]})((({wide}){a} * ({wide}){b}) >> {kind[1:]}))"
            return f"({high} + {c})" if what == "mad" else high
        bits = {"add": "+", "sub": "-", "mul": "*", "and": "&", "or": "|", "xor": "^"}
        if what in bits:
            return f"({TYPES[kind]})({a} {bits[what]} {b})"
        if what in ("fma", "mad"):
            return f"fma{f}({a}, {b}, {c})" if real else f"({TYPES[kind]})({a} * {b} + {c})"
        if what in ("div", "rem"):
            return f"({a} {'/' if what == 'div' else '%'} {b})"
        if what in ("min", "max"):
            if real and "NaN" in words:
                return f"(isnan({a}) || isnan({b}) ? NAN : f{what}{f}({a}, {b}))"
            return f"f{what}{f}({a}, {b})" if real else f"({a} {'<' if what == 'min' else '>'} {b} ? {a} : {b})"
        if what == "shl":
            return f"({b} >= {kind[1:]} ? 0 : ({TYPES[kind]})({a} << {b}))"
        if what == "shr":
            return f"({b} >= {kind[1:]} ? ({a} < 0 ? -1 : 0) : ({a} >> {b}))"
        single = {
            "neg": "(-{a})", "not": "(~{a})", "abs": "fabs{f}({a})" if real else "({a} < 0 ? -{a} : {a})",
            "sqrt": "sqrt{f}({a})", "rcp": "(1 / {a})", "rsqrt": "(1 / sqrt{f}({a}))", "ex2": "exp2{f}({a})",
            "lg2": "log2{f}({a})", "sin": "sin{f}({a})", "cos": "cos{f}({a})", "tanh": "tanh{f}({a})",
        }
        if what in single:
            return single[what].format(a=a, f=f)
        if what == "copysign":
            return f"copysign{f}({b}, {a})"
        if what == "bfi" and kind == "b32":
            # The first bits of a in b, from one place on; places beyond the number hold nothing.
            place, count = c, inputs[3]
            mask = f"({count} >= 32 ? ~0u : (1u << {count}) - 1)"
            return f"({place} >= 32 ? {b} : (({b} & ~({mask} << {place})) | (({a} & {mask}) << {place})))"
        raise SystemExit(f"{self.name}: {'.'.join(words)} is not known")

    def load(self, words, args):
        kind = words[-1]
        store = "b16" if kind in NARROW else kind
        size = {"8": 1, "16": 2, "32": 4, "64": 8}[re.sub(r"\D", "", store)]
        targets = args[0].strip("{} ").split(",") if args[0].startswith("{") else [args[0]]
        at = self.place(args[1], [word for word in words if word != "volatile"])
        found = []
        for index, target in enumerate(targets):
            value = f"LOAD({TYPES[store]}, {at} + {index * size})"
            found.append(self.put(target, store, value))
        return " ".join(found)

    def store(self, words, args):
        kind = words[-1]
        store = "b16" if kind in NARROW else kind
        size = {"8": 1, "16": 2, "32": 4, "64": 8}[re.sub(r"\D", "", store)]
        sources = args[1].strip("{} ").split(",") if args[1].startswith("{") else [args[1]]
        at = self.place(args[0], [word for word in words if word != "volatile"])
        each = (f"STORE({TYPES[store]}, {at} + {i * size}, {self.value(s, store)});" for i, s in enumerate(sources))
        return " ".join(each)

    def packed(self, args, kind):
        parts = lambda text: [part.strip() for part in text.strip(" {}").split(",")]
        if args[1].strip().startswith("{"):
            own = parts(args[1])
            width = int(kind[1:]) // len(own)
            joined = " | ".join(
                f"((uint64_t){self.value(part, f'u{width}')} << {i * width})" for i, part in enumerate(own))
            return self.put(args[0], kind, f"({PLAIN[kind]})({joined})")
        own = parts(args[0])
        width = int(kind[1:]) // len(own)
        source = self.value(args[1], kind)
        return " ".join(
            f"{register(part)} = (uint{width}_t)({source} >> {i * width});" for i, part in enumerate(own) if part != "_")

    def convert(self, args, to, of, rounding, saturate):
        value = f"{NARROW[of][1]}({self.value(args[1], 'u16')})" if of in NARROW else self.value(args[1], of)
        real_in, real_out = of in FLOAT or of in NARROW, to in FLOAT or to in NARROW
        way = rounding[0] if rounding else ""
        if way.endswith("i"):
            value = {"rni": "rint", "rzi": "trunc", "rmi": "floor", "rpi": "ceil"}[way] + f"({value})"
        if real_in and not real_out:
            low, high = limits(to)
            value = f"({value} != {value} ? 0 : {value} <= {low} ? ({TYPES[to]}){low} : {value} >= {high} ? ({TYPES[to]})~({TYPES[to]})({low}) : ({TYPES[to]})({value}))"
            if to.startswith("u"):
                low_value = f"({TYPES[to]})~({TYPES[to]})0"
                raw = f"{NARROW[of][1]}({self.value(args[1], 'u16')})" if of in NARROW else self.value(args[1], of)
                value = f"(!({raw} > 0) ? 0 : {raw} >= {high} ? {low_value} : ({TYPES[to]})({raw}))"
        if saturate and real_out:
            # What is no number becomes zero.
            value = f"(!({value} > 0) ? 0 : {value} > 1 ? 1 : {value})"
        if to in NARROW:
            return f"{register(args[0])} = {NARROW[to][0]}((float)({value}));"
        return self.put(args[0], to, f"({TYPES[to]})({value})")

    def compare(self, words, args):
        kind = words[-1]
        a, b = (self.value(arg, kind) for arg in args[1:3])
        sign = words[1]
        if kind in NARROW:
            a, b = (f"{NARROW[kind][1]}({self.value(arg, 'u16')})" for arg in args[1:3])
        if sign in ("num", "nan"):
            found = f"{'!' if sign == 'num' else ''}(isnan({a}) || isnan({b}))"
        elif sign.endswith("u") and sign[:-1] in COMPARE:
            found = f"(isnan({a}) || isnan({b}) || {a} {COMPARE[sign[:-1]]} {b})"
        elif sign == "ne" and (kind in FLOAT or kind in NARROW):
            found = f"(!isnan({a}) && !isnan({b}) && {a} != {b})"
        else:
            found = f"({a} {COMPARE[sign]} {b})"
        joined = [word for word in words[2:-1] if word in ("and", "or", "xor")]
        if joined:
            found = f"({found}) {dict(zip(('and', 'or', 'xor'), '&|^'))[joined[0]]} {self.value(args[3], 'pred')}"
        return f"{register(args[0])} = {found};"


def size_of(param):
    """Bytes of a kernel's parameter."""
    array = re.search(r"\.b8 \w+\[(\d+)\]", param)
    return int(array[1]) if array else int(re.search(r"\.[busf](\d+)", param)[1]) // 8


def register(text):
    """A register's name in C: its own could be that of a function."""
    return "r_" + text.strip().lstrip("%")


def limits(kind):
    bits = int(kind[1:])
    return (f"-{float(2 ** (bits - 1))}", f"{float(2 ** (bits - 1))}") if kind[0] == "s" else ("0", f"{float(2 ** bits)}")


def label(text):
    return text.strip().replace("$", "L")


def split(text):
    """Operands, at the commas outside braces."""
    parts, depth, part = [], 0, ""
    for c in text:
        depth += {"{": 1, "}": -1}.get(c, 0)
        if c == "," and depth == 0:
            parts.append(part.strip())
            part = ""
        else:
            part += c
    return parts + [part.strip()] if part.strip() else parts


def statements(body):
    for text in re.split(r";|(?<=:)\n", body):
        text = " ".join(text.split())
        while match := re.match(r"(\$?\w+:)\s*(.*)", text):
            yield match[1]
            text = match[2]
        # Scopes only name registers again.
        while match := re.match(r"[{}](?: |$)(?!%)(.*)", text):
            text = match[1]
        if text:
            yield text


def shared_of(text):
    """Offsets of shared arrays, those of the launch last, and the bytes of all the others."""
    offsets, at = {}, 0
    for align, name, size in re.findall(r"\.shared \.align (\d+) \.b8 (\w+)\[(\d+)\]", text):
        at = -(-at // int(align)) * int(align)
        offsets[name] = at
        at += int(size)
    at = -(-at // 16) * 16
    for name in re.findall(r"\.extern \.shared \.align \d+ \.b8 (\w+)\[\]", text):
        offsets[name] = at
    return offsets, at


def main(path, wanted):
    text = re.sub(r"//[^\n]*|/\*.*?\*/", "", open(path).read(), flags=re.S)
    found = re.search(
        rf"\.entry {re.escape(wanted)}\s*\((.*?)\)\s*((?:\.\w+ [^{{]*?)?)\{{(.*?)\n\}}", text, flags=re.S)
    if not found:
        raise SystemExit(f"no kernel {wanted}")
    inside = found[3]
    outside = re.sub(r"\.entry.*?\n\}", "", text, flags=re.S)
    shared, size = shared_of(outside + inside)
    kernel = Kernel(wanted, found[1], inside, shared)
    code = kernel.code()
    waits = int("standin_barrier()" in code or "standin_shuffle(" in code)
    print(HEAD + code + f"\nconst int standin_waits = {waits}, standin_shared = {size};")
    print(f"const int standin_params[] = {{{', '.join(map(str, kernel.sizes + [0]))}}};")


main(*sys.argv[1:])

"""Makes C of one kernel of a PTX module, each instruction a statement, each register a variable, and
compiles it.

usage: ptx.py KERNEL KERNEL.so < MODULE

What an instruction means is from NVIDIA's "PTX ISA 9.0". One that is not known here ends it with the
instruction's text: nothing is left out in silence. kernel.h has what the C is written in.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

NAME = r"[%$\w]+"
FLOATS = {"f16": 2, "bf16": 2, "f32": 4, "f64": 8}
# What a plain binary operation is in C; of floats min and max are functions.
BINARY = {"add": "+", "sub": "-", "mul": "*", "and": "&", "or": "|", "xor": "^"}
COMPARE = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
UNSIGNED = {"lo": "<", "ls": "<=", "hi": ">", "hs": ">="}
ROUND = {"rn": "FE_TONEAREST", "rz": "FE_TOWARDZERO", "rm": "FE_DOWNWARD", "rp": "FE_UPWARD"}
WHOLE = {"rni": "nearbyint", "rzi": "trunc", "rmi": "floor", "rpi": "ceil"}
APPROX = {
    "rcp": "1 / a", "sqrt": "sqrt(a)", "rsqrt": "1 / sqrt(a)", "ex2": "exp2(a)", "lg2": "log2(a)",
    "sin": "sin(a)", "cos": "cos(a)", "tanh": "tanh(a)",
}  # fmt: skip
SPECIAL = {
    "%laneid": "(t->number % 32)", "%warpid": "(t->number / 32)", "WARP_SZ": "32u",
    "%lanemask_eq": "(1u << t->number % 32)", "%lanemask_lt": "((1u << t->number % 32) - 1)",
    "%dynamic_smem_size": "t->block->dynamic",
}  # fmt: skip
for axis in "xyz":
    SPECIAL[f"%tid.{axis}"] = f"t->{axis}"
    for of in ["ntid", "ctaid", "nctaid"]:
        SPECIAL[f"%{of}.{axis}"] = f"t->block->{of}.{axis}"


class Unknown(Exception):
    pass


def kind(type_):
    """Of s32, u32 or b32 the letter and the bytes; of a float `f` and the bytes."""
    if type_ in FLOATS:
        return "f", FLOATS[type_]
    match = re.fullmatch(r"([sub])(8|16|32|64)", type_)
    if not match:
        raise Unknown(f"type {type_}")
    return match[1], int(match[2]) // 8


def c_type(type_):
    """What a value of it is computed in: bf16 is not C's, so these are float until they are kept."""
    if type_ == "pred":
        return "bool"
    letter, size = kind(type_)
    if letter == "f":
        return {"f16": "_Float16", "bf16": "float", "f32": "float", "f64": "double"}[type_]
    return f"{'int' if letter == 's' else 'uint'}{8 * size}_t"


def bits(type_):
    return f"uint{8 * kind(type_)[1]}_t"


def c_name(name):
    return "v_" + re.sub(r"\W", "_", name)


def split(text):
    """A list's parts at its commas, those between brackets left alone."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "[{(") - (letter in ")}]")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


def statements(text):
    """`{`, `}`, `label:` and statements without their `;`, in order."""
    at = 0
    token = re.compile(rf"\s*(?:([{{}}])|({NAME}):(?!:)|((?:[^;{{]|\{{[^;{{}}]*\}})+);)")
    while text[at:].strip():
        match = token.match(text, at)
        if not match:
            raise Unknown(f"`{text[at:].strip()[:60]}`")
        yield match[1] or (f"{match[2]}:" if match[2] else " ".join(match[3].split()))
        at = match.end()


class Module:
    def __init__(self, text):
        text = re.sub(r"//[^\n]*|/\*.*?\*/", "", text, flags=re.S)
        # A function is a head, up to its brace, and a body; all else ends with `;` or its line.
        self.functions, self.variables = {}, {}
        at, head = 0, re.compile(r"[^{;]*?\.(entry|func)\b[^{;]*?(\([^)]*\))?\s*(" + NAME + r")\s*(\([^)]*\))[^{;]*([{;])")
        text = re.sub(r"^\s*\.(version|target|address_size|file|loc|section)\b[^\n]*", "", text, flags=re.M)
        variable = re.compile(r"\s*((?:\.\w+\s+)*)\.(global|const|shared)\s+([^;]*);")
        while text[at:].strip():
            if match := variable.match(text, at):
                self.declare(match[2], match[3], "extern" in match[1])
                at = match.end()
                continue
            match = head.match(text, at)
            if not match:
                raise Unknown(f"`{text[at:].strip()[:60]}`")
            at = end = match.end()
            if match[5] == "{":
                depth = 1
                while depth:
                    brace = re.compile(r"[{}]").search(text, end)
                    depth, end = depth + (1 if brace[0] == "{" else -1), brace.end()
                parameters = [split(part.strip("()")) if part else [] for part in (match[2], match[4])]
                self.functions[match[3]] = (parameters, text[at : end - 1])
            at = end

    def declare(self, space, text, unsized=False):
        """A variable: its space, alignment, bytes and first values."""
        match = re.fullmatch(rf"(?:\.align\s+(\d+)\s+)?\.(\w+)\s+({NAME})((?:\[\d*\])*)(?:\s*=\s*(.*))?", text.strip(), re.S)
        if not match:
            raise Unknown(f"variable `{text}`")
        size = kind(match[2])[1]
        for count in re.findall(r"\[(\d*)\]", match[4]):
            size *= int(count or 0)
        values = [] if match[5] is None else split(match[5].strip("{} \n"))
        if any(not re.fullmatch(r"-?(0x[0-9a-fA-F]+|\d+)U?", value) for value in values):
            raise Unknown(f"variable `{text[:60]}`")
        self.variables[match[3]] = (space, int(match[1] or kind(match[2])[1]), match[2], size, values)
        if unsized and space != "shared":
            raise Unknown(f"extern variable `{text[:60]}`")


class Function:
    """One function's C, and whom it calls."""

    def __init__(self, module, name, entry):
        self.module, self.name, self.entry = module, name, entry
        (self.results, self.parameters), self.body = module.functions[name]
        self.scopes, self.shared, self.calls, self.together = [{}], {}, [], False
        for variable, (space, *_) in module.variables.items():
            self.scopes[0][variable] = space
        for parameter in self.results + self.parameters:
            self.scopes[0][self.parameter(parameter)[0]] = "param"

    @staticmethod
    def parameter(text):
        """Name, alignment and bytes of `.param .align 8 .b8 name[24]`."""
        match = re.match(rf"\.param\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+(?:\.ptr\s.*\s)?({NAME})(?:\[(\d+)\])?$", " ".join(text.split()))
        if not match:
            raise Unknown(f"parameter `{text}`")
        size = kind(match[2])[1]
        return match[3], int(match[1] or size), size * int(match[4] or 1)

    def find(self, name):
        return next((scope[name] for scope in reversed(self.scopes) if name in scope), None)

    def read(self, text, type_):
        """C that has the value of an operand as this type."""
        c = c_type(type_)
        is_float = type_ in FLOATS
        if type_ == "pred":
            return f"!{self.read(text[1:], type_)}" if text[0] == "!" else c_name(text) if self.find(text) else str(int(text))
        if match := re.fullmatch(r"0([fFdD])([0-9a-fA-F]+)", text):
            value = f"to_f32(0x{match[2]}u)" if match[1] in "fF" else f"to_f64(0x{match[2]}ull)"
            return value if is_float else f"({c}){'from_f32' if match[1] in 'fF' else 'from_f64'}({value})"
        if re.fullmatch(r"-?(0[xX][0-9a-fA-F]+|\d+)U?", text):
            if is_float:
                return f"to_{type_}(({bits(type_)}){text.rstrip('U')}ll)"
            number = int(text.rstrip("U"), 0) % 2**64
            return f"({c}){number}ull"
        if text in SPECIAL:
            return f"({c}){SPECIAL[text]}"
        held = self.find(text)
        if held in ("f32", "f64"):
            return c_name(text) if is_float else f"({c})from_{held}({c_name(text)})"
        if held in ("b8", "b16", "b32", "b64"):
            return f"to_{type_}(({bits(type_)}){c_name(text)})" if is_float else f"({c}){c_name(text)}"
        if held == "pred":
            return f"({c}){c_name(text)}"
        if held:
            return f"({c}){self.address_of(text, held)}"
        raise Unknown(f"operand {text}")

    def write(self, text, type_, value):
        """A statement that keeps a value of this type."""
        held = self.find(text)
        if text == "_":
            return f"(void)({value});"
        if held is None:
            raise Unknown(f"operand {text}")
        if type_ in FLOATS:
            return f"{c_name(text)} = {value};" if held in FLOATS else f"{c_name(text)} = from_{type_}({value});"
        if held in FLOATS:
            return f"{c_name(text)} = to_{held}({value});"
        return f"{c_name(text)} = ({c_type(type_)})({value});"

    def address_of(self, name, space):
        if space == "shared":
            self.shared.setdefault(name)
            return f"shared_{c_name(name)}"
        if space == "global":
            return f"(DEVICE | (uintptr_t){c_name(name)})"
        return f"(uintptr_t){c_name(name)}"

    def place(self, text, space, type_, count=1):
        """C of the pointer that `[operand+offset]` is in a space."""
        match = re.fullmatch(rf"\[\s*({NAME})\s*(?:\+\s*(-?\w+))?\s*\]", text)
        if not match:
            raise Unknown(f"address {text}")
        base, offset = self.read(match[1], "u64"), match[2] or "0"
        if self.find(match[1]) in ("b32", "b16"):
            # The address has 32 bits, the offset a sign.
            base = f"(uint32_t){c_name(match[1])}"
        size = kind(type_)[1] * count
        if space not in ("global", "shared", "local", "const", "param", "generic"):
            raise Unknown(f"space {space}")
        return f"in_{space}(t, {base} + ({offset}ll), {size})"

    def lower(self, text):
        """The statement of an instruction."""
        match = re.match(rf"(?:@(!?)({NAME})\s+)?([\w.]+(?:::\w+)?)\s*(.*)", text)
        guard = f"if ({match[1]}{c_name(match[2])}) " if match[2] else ""
        op, *mods = match[3].split(".")
        try:
            return guard + "{ " + self.instruction(op, mods, split(match[4])) + " }"
        except (Unknown, KeyError, IndexError, ValueError) as why:
            raise Unknown(f"`{text}` ({why})") from why

    def instruction(self, op, mods, o):
        allowed = lambda *names: self.only(mods, names)
        type_ = mods[-1] if mods else ""
        read, write = self.read, self.write
        if op in ("add", "sub", "mul", "min", "max", "and", "or", "xor", "fma", "mad", "div", "rem") and type_ != "pred":
            return self.arithmetic(op, mods, o)
        if op in ("and", "or", "xor"):
            return write(o[0], "pred", f"{read(o[1], 'pred')} {BINARY[op]} {read(o[2], 'pred')}")
        if op in ("addc", "subc", "madc"):
            return self.arithmetic(op, mods, o)
        if op == "mov":
            if o[0].startswith("{"):
                parts, each = split(o[0].strip("{}")), 8 * kind(type_)[1] // len(split(o[0].strip("{}")))
                value = f"{bits(type_)} all = {read(o[1], 'b' + type_[1:])}; "
                return value + " ".join(write(part, f"b{each}", f"all >> {each * at}") for at, part in enumerate(parts))
            if o[1].startswith("{"):
                parts = split(o[1].strip("{}"))
                each = 8 * kind(type_)[1] // len(parts)
                values = [f"({bits(type_)}){read(part, f'b{each}')} << {each * at}" for at, part in enumerate(parts)]
                return write(o[0], f"b{8 * kind(type_)[1]}", " | ".join(values))
            return write(o[0], type_, read(o[1], type_))
        if op in ("neg", "abs", "not", "clz", "popc", "brev", "cnot"):
            allowed("ftz")
            if type_ == "pred":
                return write(o[0], type_, f"!{read(o[1], type_)}")
            letter, size = kind(type_)
            a = read(o[1], type_)
            if letter == "f":
                # Of the sign alone, so that what is not a number keeps the rest.
                sign, whole = f"((({bits(type_)})1) << {8 * size - 1})", read(o[1], f"b{8 * size}")
                return write(o[0], f"b{8 * size}", {"neg": f"{whole} ^ {sign}", "abs": f"{whole} & ~{sign}"}[op])
            if op in ("clz", "popc", "brev"):
                return write(o[0], "u32" if op != "brev" else type_, f"{op}{8 * size}({a})")
            minus = f"-({bits(type_)}){a}"
            return write(o[0], type_, {"neg": minus, "not": f"~{a}", "abs": f"{a} < 0 ? {minus} : {a}", "cnot": f"!{a}"}[op])
        if op in ("shl", "shr"):
            size, by = 8 * kind(type_)[1], read(o[2], "u32")
            over = f"({read(o[1], type_)} < 0 ? -1 : 0)" if type_[0] == "s" else "0"
            return write(o[0], type_, f"{by} >= {size} ? {over} : {read(o[1], type_)} {'<<' if op == 'shl' else '>>'} {by}")
        if op in ("shf", "bfi", "bfe", "prmt", "lop3"):
            return self.pieces(op, mods, o)
        if op == "copysign":
            return write(o[0], type_, f"copysign({read(o[2], type_)}, {read(o[1], type_)})")
        if op in APPROX:
            return self.approximate(op, mods, o)
        if op == "cvt":
            return self.convert(mods, o)
        if op == "cvta":
            space = mods[-2]
            base = f" {'-' if 'to' in mods else '+'} (uintptr_t)t->block->shared" if space == "shared" else ""
            return write(o[0], type_, read(o[1], type_) + base)
        if op == "selp":
            return write(o[0], type_, f"{read(o[3], 'pred')} ? {read(o[1], type_)} : {read(o[2], type_)}")
        if op in ("set", "setp"):
            return self.compare(op, mods, o)
        if op in ("ld", "ldu", "st"):
            return self.memory(op, mods, o)
        if op in ("atom", "red"):
            return self.atomic(op, mods, o)
        if op == "bra":
            allowed("uni")
            return f"goto L{c_name(o[0])};"
        if op == "call":
            return self.call(o)
        if op == "ret" or (op == "exit" and self.entry):
            return "return;"
        if op == "trap":
            return 'fail(t, 719, "a trap");'
        if op in ("membar", "fence"):
            return "__atomic_thread_fence(__ATOMIC_SEQ_CST);"
        if op in ("bar", "barrier"):
            self.together = True
            if mods[:1] == ["warp"]:
                return f"exchange(t, {read(o[0], 'u32')}, 0);"
            allowed("sync", "cta", "aligned")
            if o != ["0"]:
                raise Unknown("barriers but the one of all threads")
            return "barrier(t);"
        if op in ("shfl", "vote", "redux", "activemask"):
            return self.warp(op, mods, o)
        raise Unknown("no such instruction here")

    def pieces(self, op, mods, o):
        """What takes bits apart and puts them together, by functions of kernel.h."""
        type_ = mods[-1]
        self.only(mods, ("l", "r", "wrap", "clamp") if op == "shf" else ())
        size = 8 * kind(type_)[1]
        wide = {"bfi": 2, "bfe": 1}.get(op, 0)
        given = [self.read(operand, f"b{size}" if at < wide else "u32") for at, operand in enumerate(o[1:])]
        given += {
            "shf": [int("l" in mods), int("wrap" in mods)], "bfi": [size], "bfe": [size, int(type_[0] == "s")],
        }.get(op, [])  # fmt: skip
        return self.write(o[0], type_, f"{op}({', '.join(map(str, given))})")

    @staticmethod
    def only(mods, names):
        for mod in mods[:-1]:
            if mod not in names:
                raise Unknown(f".{mod}")

    def arithmetic(self, op, mods, o):
        type_ = mods[-1]
        letter, size = kind(type_)
        values = [self.read(operand, type_) for operand in o[1:]]
        if letter == "f":
            self.only(mods, ("rn", "rz", "rm", "rp", "ftz", "sat", "NaN", "approx", "full", "noftz"))
            if op == "rem" or (op in ("and", "or", "xor")):
                raise Unknown("of floats")
            if "ftz" in mods:
                values = [f"ftz({value})" for value in values]
            wide = next((ROUND[mod] for mod in mods if mod in ("rz", "rm", "rp")), None)
            if op in ("min", "max"):
                value = f"f{op}_({', '.join(values)}, {int('NaN' in mods)})"
            elif wide:
                name = {"fma": "fma", "mad": "fma", "div": "div"}.get(op, op)
                value = f"({c_type(type_)})rounded_{size}({wide}, '{name[0]}', {', '.join([*values, '0'][:3])})"
            elif op in ("fma", "mad"):
                # What is half is exact in double, until it is rounded.
                value = f"{'fmaf' if size == 4 else 'fma'}({', '.join(values)})"
            else:
                value = f"{values[0]} {BINARY.get(op, '/')} {values[1]}"
            value = f"({c_type(type_)})({value})"
            if "sat" in mods:
                value = f"saturated({value})"
            return self.write(o[0], type_, f"ftz({value})" if "ftz" in mods else value)
        self.only(mods, ("lo", "hi", "wide", "cc"))
        carries = "cc" in mods or op.endswith("c")
        if carries:
            if size != 4:
                raise Unknown("carries of 64 bits")
            a, b, c = [f"(uint64_t){self.read(operand, 'u32')}" for operand in [*o[1:], *["0"] * 3][:3]]
            if op in ("mad", "madc"):
                half = f"({a} * {b}" + (" >> 32)" if "hi" in mods else " & 0xffffffffull)")
                total = f"{half} + {c}"
            else:
                total = f"{a} {'+' if op[:3] == 'add' else '-'} {b}"
            if op.endswith("c"):
                total += " - carry" if op == "subc" else " + carry"
            keep = " carry = total >> 32 & 1;" if "cc" in mods else ""
            return f"uint64_t total = {total};{keep} {self.write(o[0], 'u32', 'total')}"
        if op in ("min", "max"):
            return self.write(o[0], type_, f"{values[0]} {'<' if op == 'min' else '>'} {values[1]} ? {values[0]} : {values[1]}")
        if op in ("div", "rem"):
            return self.write(o[0], type_, f"{op}_{letter}{8 * size}({', '.join(values)})")
        if op in ("mul", "mad"):
            twice = f"{letter}{16 * size}"
            if "wide" in mods:
                total = f"({c_type(twice)}){values[0]} * ({c_type(twice)}){values[1]}"
                return self.write(o[0], twice, total + (f" + {self.read(o[3], twice)}" if op == "mad" else ""))
            product = f"({'unsigned ' if letter == 'u' else ''}__int128){values[0]} * {values[1]}"
            if "hi" in mods:
                product = f"(({product}) >> {8 * size})"
            return self.write(o[0], type_, product + (f" + {values[2]}" if op == "mad" else ""))
        # Without signs, as an overflow of a sign is not defined in C.
        values = [f"({bits(type_)}){value}" for value in values]
        return self.write(o[0], type_, f"{values[0]} {BINARY[op]} {values[1]}")

    def approximate(self, op, mods, o):
        """To the last bit where PTX says so, else better than a GPU does it."""
        type_ = mods[-1]
        self.only(mods, ("approx", "rn", "ftz"))
        a = self.read(o[1], type_)
        value = APPROX[op].replace("sqrt", "sqrtf" if "rn" in mods and type_ == "f32" else "sqrt")
        wide = type_ if "rn" in mods else "f64"
        ftz = "ftz" if "ftz" in mods and type_ == "f32" else ""
        return f"const {c_type(wide)} a = {ftz}({a}); " + self.write(o[0], type_, f"{ftz}(({c_type(type_)})({value}))")

    def convert(self, mods, o):
        *mods, to, source = mods
        for mod in mods:
            if mod not in (*ROUND, *WHOLE, "sat", "ftz"):
                raise Unknown(f".{mod}")
        if o[1].startswith("{") or len(o) > 2:
            raise Unknown("two values at once")
        value = self.read(o[1], source)
        if "ftz" in mods and source == "f32":
            value = f"ftz({value})"
        if source in FLOATS and (whole := next((WHOLE[mod] for mod in mods if mod in WHOLE), None)):
            value = f"{whole}({value})"
        if to in FLOATS:
            up = next((ROUND[mod] for mod in mods if mod in ("rz", "rm", "rp")), None)
            if up:
                if to != "f32" or source == "f64":
                    raise Unknown("this rounding")
                value = f"(float)rounded_from({up}, {value})" if source not in FLOATS else value
            value = f"({c_type(to)})({value})"
            if "sat" in mods:
                value = f"saturated({value})"
        elif source in FLOATS:
            letter, size = kind(to)
            value = f"whole_{letter}{8 * size}({value})"
        elif "sat" in mods:
            raise Unknown(".sat of whole numbers")
        return self.write(o[0], to, value)

    def compare(self, op, mods, o):
        how, *rest = mods
        extra = rest[:-1] if op == "setp" else rest[:-2]
        for mod in extra:
            if mod != "ftz":
                raise Unknown(f".{mod}")
        type_ = rest[-1]
        if "|" in o[0]:
            raise Unknown("two results")
        a, b = (self.read(operand, type_) for operand in o[1:3])
        is_float = type_ in FLOATS
        if is_float and how in ("num", "nan"):
            value = f"{'' if how == 'nan' else '!'}unordered({a}, {b})"
        elif is_float and how == "ne":
            value = f"!unordered({a}, {b}) && {a} != {b}"
        elif is_float and how.endswith("u") and how[:-1] in COMPARE:
            value = f"unordered({a}, {b}) || {a} {COMPARE[how[:-1]]} {b}"
        else:
            value = f"{a} {({**COMPARE, **({} if is_float else UNSIGNED)})[how]} {b}"
        if op == "setp":
            return self.write(o[0], "pred", value)
        to = rest[-2]
        return self.write(o[0], to, f"({value}) ? {'1' if to in FLOATS else '-1'} : 0")

    def memory(self, op, mods, o):
        mods, type_ = list(mods[:-1]), mods[-1]
        count, space = 1, "generic"
        for mod in mods:
            if mod in ("v2", "v4"):
                count = int(mod[1])
            elif mod in ("global", "shared", "local", "const", "param"):
                space = mod
            elif mod not in ("nc", "volatile", "relaxed", "weak", "sys", "gpu", "cta", "acquire", "release", "L1::no_allocate"):
                raise Unknown(f".{mod}")
        address, values = (o[1], o[0]) if op != "st" else (o[0], o[1])
        names = split(values.strip("{}"))
        at = f"{'' if op == 'st' else 'const '}{bits(type_)} *at = {self.place(address, space, type_, count)}; "
        if op == "st":
            # As bits; a value that is wider than what is kept loses its upper part.
            kept = [self.read(name, f"b{8 * kind(type_)[1]}") for name in names]
            return at + " ".join(f"at[{n}] = {value};" for n, value in enumerate(kept))
        as_ = type_ if type_ not in FLOATS else f"b{8 * kind(type_)[1]}"
        loads = " ".join(f"const {bits(type_)} l{n} = at[{n}];" for n in range(count))
        return at + loads + " " + " ".join(self.write(name, as_, f"({c_type(as_)})l{n}") for n, name in enumerate(names))

    def atomic(self, op, mods, o):
        *mods, what, type_ = [mod for mod in mods if mod != "noftz"]
        space = next((mod for mod in mods if mod in ("global", "shared")), "generic")
        for mod in mods:
            if mod not in ("global", "shared", "relaxed", "acquire", "release", "acq_rel", "gpu", "cta", "sys"):
                raise Unknown(f".{mod}")
        to, o = (o[0], o[1:]) if op == "atom" else ("_", o)
        b = self.read(o[1], type_)
        as_ = f"to_{type_}" if type_ in FLOATS else f"({c_type(type_)})"
        a = f"{as_}(old)"
        value = {
            "add": f"{a} + {b}", "and": f"{a} & {b}", "or": f"{a} | {b}", "xor": f"{a} ^ {b}", "exch": b,
            "min": f"{a} < {b} ? {a} : {b}", "max": f"{a} > {b} ? {a} : {b}",
            "inc": f"{a} >= {b} ? 0 : {a} + 1", "dec": f"{a} == 0 || {a} > {b} ? {b} : {a} - 1",
            "cas": f"{a} == {b} ? {self.read(o[2], type_) if len(o) > 2 else ''} : {a}",
        }[what]  # fmt: skip
        made = f"from_{type_}(({c_type(type_)})({value}))" if type_ in FLOATS else value
        return (
            f"{bits(type_)} *at = {self.place(o[0], space, type_)}, old = *at, new; "
            f"do new = {made}; while (!__atomic_compare_exchange_n(at, &old, new, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)); "
            + self.write(to, f"b{8 * kind(type_)[1]}", "old")
        )

    def warp(self, op, mods, o):
        """What the threads of a warp do together: each has the values of all."""
        self.together = True
        if op == "activemask":
            raise Unknown("which threads are together is not known")
        if op == "shfl":
            to, _, valid = o[0].partition("|")
            a, b, c, members = (self.read(operand, "u32") for operand in o[1:5])
            text = f"const uint32_t lane = shfl('{mods[1][0]}', t->number % 32, {b}, {c}, &inside); "
            text = f"bool inside; const uint32_t *all = exchange(t, {members}, {a}); {text}"
            text += f"only_from(t, {members}, lane); " + self.write(to.strip(), "b32", "all[lane]")
            return text + (" " + self.write(valid.strip(), "pred", "inside") if valid else "")
        if op == "vote":
            members = self.read(o[2], "u32")
            text = f"const uint32_t ballot = voted(exchange(t, {members}, {self.read(o[1], 'pred')}), {members}); "
            if mods[1] == "ballot":
                return text + self.write(o[0], "b32", "ballot")
            value = {"all": f"ballot == {members}", "any": "ballot != 0", "uni": f"ballot == 0 || ballot == {members}"}[mods[1]]
            return text + self.write(o[0], "pred", value)
        raise Unknown("not here")

    def call(self, o):
        results = split(o.pop(0).strip("()")) if o[0].startswith("(") else []
        name, arguments = o[0], split(o[1].strip("()")) if len(o) > 1 else []
        given = "".join(f", {c_name(part)}" for part in results + arguments)
        if name in self.module.functions:
            self.calls.append(name)
            return f"{c_name(name)}(t{given});"
        if name == "__assertfail":
            return f"failed_assertion(t{given});"
        raise Unknown(f"{name} is not in the module")

    def c(self):
        """The function, with what it says of itself gathered while it is written."""
        lines = []
        for text in statements(self.body):
            if text == "{":
                self.scopes.append({})
                lines.append("{")
            elif text == "}":
                self.scopes.pop()
                lines.append("}")
            elif text.endswith(":"):
                lines.append(f"L{c_name(text[:-1])}:;")
            elif text.startswith("."):
                lines.append(self.local(text))
            else:
                lines.append(self.lower(text))
        given = "".join(f", char *{c_name(self.parameter(part)[0])}" for part in self.results + self.parameters)
        head = f"static void {c_name(self.name)}(const Thread *t{given})"
        return head, "\n".join([head + " {", "unsigned carry = 0; (void)carry;", *lines, "}"])

    def local(self, text):
        """A declaration within a function."""
        _, space, rest = re.split(r"^\.(\w+)\s*", text, maxsplit=1)
        if space == "reg":
            type_, _, names = rest.strip()[1:].partition(" ")
            found = []
            for name in split(names):
                match = re.fullmatch(rf"({NAME})(?:<(\d+)>)?", name)
                found += [f"{match[1]}{n}" for n in range(int(match[2]))] if match[2] else [match[1]]
            held = type_ if type_ in ("pred", "f32", "f64") else f"b{8 * kind(type_)[1]}"
            self.scopes[-1].update({name: held for name in found})
            return f"{c_type(held)} {', '.join(f'{c_name(name)} = 0' for name in found)};"
        if space == "param":
            name, align, size = self.parameter(text)
            self.scopes[-1][name] = "param"
            return f"_Alignas({align}) char {c_name(name)}[{size}];"
        if space == "shared":
            self.module.declare(space, rest)
            name = next(reversed(self.module.variables))
            self.scopes[-1][name] = space
            return ""
        if space == "local":
            name, align, size = self.parameter(f".param {rest}")
            self.scopes[-1][name] = space
            return f"_Alignas({align}) char {c_name(name)}[{size}]; memset({c_name(name)}, 0xff, {size});"
        if space in ("loc", "pragma"):
            return ""
        raise Unknown(f"`{text}`")


def kernel(text, name):
    module = Module(text)
    if name not in module.functions:
        sys.exit(f"no kernel {name} is in this module")
    done, bodies, waiting, shared, together = {}, [], [name], {}, False
    while waiting:
        function = Function(module, waiting.pop(), waiting == [] and not done)
        head, body = function.c()
        done[function.name] = head
        bodies.append(body)
        shared.update(function.shared)
        together |= function.together
        waiting += [called for called in function.calls if called not in done and called not in waiting]
    lines, end, unsized = ['#include "kernel.h"'], 0, []
    for variable in shared:
        _, align, _, size, _ = module.variables[variable]
        if size == 0:
            unsized.append((variable, align))
            continue
        end = -(-end // align) * align
        lines.append(f"#define shared_{c_name(variable)} {end}u")
        end += size
    for variable, align in unsized:
        end = -(-end // align) * align
        lines.append(f"#define shared_{c_name(variable)} {end}u")
    text = "\n".join(bodies)
    for variable, (space, align, type_, size, values) in module.variables.items():
        if space != "shared" and re.search(rf"\b{c_name(variable)}\b", text):
            count = size // kind(type_)[1]
            first = f" = {{{', '.join(values)}}}" if values else ""
            lines.append(f"_Alignas({align}) static {bits(type_)} {c_name(variable)}[{count}]{first};")
    parameters = [Function.parameter(part) for part in module.functions[name][0][1]]
    lines += [head + ";" for head in done.values()]
    lines.append(text)
    given = "".join(f", args[{at}]" for at in range(len(parameters)))
    lines.append(f"static void run(const Thread *t, char *const *args) {{ (void)args; {c_name(name)}(t{given}); }}")
    sizes = ", ".join(str(size) for *_, size in parameters) or 0
    lines.append(f"const Kernel kernel = {{ {int(together)}, {end}u, {len(parameters)}, {{ {sizes} }}, run }};")
    return "\n".join(lines) + "\n"


def main():
    name, made = sys.argv[1], Path(sys.argv[2])
    try:
        text = kernel(sys.stdin.read(), name)
    except Unknown as why:
        sys.exit(f"software GPU: {name}: not known: {why}")
    made.parent.mkdir(parents=True, exist_ok=True)
    # Others may be making the same one.
    part = made.with_suffix(f".{os.getpid()}")
    command = ["gcc", "-xc", "-O1", "-w", "-fPIC", "-shared", "-fwrapv", "-fno-strict-aliasing", "-ffp-contract=off"]
    include = ["-I", Path(__file__).parent, "-", "-o", part, "-lm"]
    if subprocess.run([*command, *include], input=text, text=True).returncode:
        sys.exit(f"software GPU: {name}: not C")
    part.rename(made)


if __name__ == "__main__":
    main()

"""Makes what a CUDA binary is linked with in place of NVIDIA's libraries: archives whose functions
open the real library at the first call. A binary so linked starts where there is none; its first
call then says that there is no device.

usage: stubs.py CUDARC_SOURCES OUT    (x86-64 Linux, with gcc and ar)
"""

import pathlib
import re
import subprocess
import sys

sources, out = map(pathlib.Path, sys.argv[1:])
# Link name: the module of cudarc that declares its functions, how they begin, the file that is
# opened, and what a call returns where there is none.
LIBRARIES = {
    "cuda": ("driver", "cu", "libcuda.so.1", 100),
    "nvrtc": ("nvrtc", "nvrtc", "libnvrtc.so.13", 11),
    "curand": ("curand", "curand", "libcurand.so.10", 203),
    "cublas": ("cublas", "cublas", "libcublas.so.13", 1),
    "cublasLt": ("cublaslt", "cublasLt", "libcublasLt.so.13", 1),
    "cudnn": ("cudnn", "cudnn", "libcudnn.so.9", 1001),
}

# A function jumps to what its slot holds: at first to its own `first_N`, which asks for the real
# function. The registers that arguments come in are kept over that.
ASSEMBLY = """
  .text
first:
  push %rbp
  mov %rsp, %rbp
  push %rax; push %rdi; push %rsi; push %rdx; push %rcx; push %r8; push %r9; push %r10
  mov 8(%rbp), %rdi
  sub $128, %rsp
  and $-16, %rsp
  {save}
  call lazy_find
  mov %rax, %r11
  {load}
  lea -64(%rbp), %rsp
  pop %r10; pop %r9; pop %r8; pop %rcx; pop %rdx; pop %rsi; pop %rdi; pop %rax
  pop %rbp
  add $8, %rsp
  jmp *%r11
{functions}
  .data
  .balign 8
  .globl lazy_slots
  .hidden lazy_slots
lazy_slots:
{slots}
  .section .note.GNU-stack,"",@progbits
"""
FUNCTION = """  .globl {name}
  .type {name},@function
{name}: jmp *lazy_slots+8*{n}(%rip)
first_{n}: push ${n}
  jmp first"""

C = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <string.h>
#define HIDDEN __attribute__((visibility("hidden")))
extern HIDDEN void *lazy_slots[];
static const struct { const char *name; unsigned char library; } functions[] = { %(functions)s };
static const char *const files[] = { %(files)s };
static void *open_already[%(count)d];
static const char why[] = "the NVIDIA library is not there";
static long text_by_pointer(int code, const char **to) { *to = why; return 0; }
static const char *text(void) { return why; }
%(absent)s
static void *const absent[] = { %(absents)s };
HIDDEN void *lazy_find(unsigned long n) {
  int library = functions[n].library;
  const char *name = functions[n].name;
  if (!open_already[library]) open_already[library] = dlopen(files[library], RTLD_NOW | RTLD_GLOBAL);
  void *found = open_already[library] ? dlsym(open_already[library], name) : 0;
  if (!found) {
    if (!strcmp(name, "cuGetErrorName") || !strcmp(name, "cuGetErrorString")) found = text_by_pointer;
    else if (strstr(name, "GetErrorString") || strstr(name, "GetStatus")) found = text;
    else found = absent[library];
  }
  __atomic_store_n(&lazy_slots[n], found, __ATOMIC_RELEASE);
  return found;
}
"""

out.mkdir(parents=True, exist_ok=True)
known = {}
for library, (module, prefix, _, _) in enumerate(LIBRARIES.values()):
    for path in sorted((sources / module / "sys").rglob("*.rs")):
        # Capital after the prefix; `cublas` would take those of `cublasLt` along.
        for name in re.findall(rf'"({prefix}[A-Z]\w*)"', path.read_text()):
            if prefix != "cublas" or not name.startswith("cublasLt"):
                known[name] = library
if len(known) < 500:
    sys.exit(f"{sources}: only {len(known)} functions are declared there; is it cudarc's `src`?")

vectors = [f"movups %xmm{i}, {16 * i}(%rsp)" for i in range(8)]
back = [f"movups {16 * i}(%rsp), %xmm{i}" for i in range(8)]
functions = [FUNCTION.format(name=name, n=n) for n, name in enumerate(known)]
(out / "lazy.s").write_text(
    ASSEMBLY.format(
        save="; ".join(vectors),
        load="; ".join(back),
        functions="\n".join(functions),
        slots="\n".join(f"  .quad first_{n}" for n in range(len(known))),
    )
)
libraries = list(LIBRARIES.values())
(out / "lazy.c").write_text(
    C
    % {
        "functions": ", ".join(f'{{"{name}", {at}}}' for name, at in known.items()),
        "files": ", ".join(f'"{file}"' for _, _, file, _ in libraries),
        "count": len(libraries),
        "absent": "\n".join(
            f"static long absent_{at}(void) {{ return {code}; }}"
            for at, (_, _, _, code) in enumerate(libraries)
        ),
        "absents": ", ".join(f"absent_{at}" for at in range(len(libraries))),
    }
)
for kind in ["s", "c"]:
    subprocess.check_call(["gcc", "-O2", "-fPIC", "-c", out / f"lazy.{kind}", "-o", out / f"lazy-{kind}.o"])
for name in LIBRARIES:
    archive = out / f"lib{name}.a"
    archive.unlink(missing_ok=True)
    # All functions are in the first; the linker asks for the others by name.
    objects = [out / "lazy-s.o", out / "lazy-c.o"] if name == "cuda" else []
    subprocess.check_call(["ar", "crs", archive, *objects])
print(f"{len(known)} functions of {len(LIBRARIES)} libraries")

"""Run programs under Linux on an emulated Intel processor with AMX.

Bochs emulates a Sapphire Rapids, instruction by instruction. Linux boots there from a CD with what
is asked for in its first file system; what the commands print comes from the serial port.
Exits with 1 unless each command ends with 0. Needs pycdlib.
"""

import argparse
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pycdlib

INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /tmp
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
export PATH=/bin
"""
COMMAND = """
echo "== "{quoted}
sh -c {quoted}
echo "== status $?, at $(cut -d ' ' -f 1 /proc/uptime)"
"""
# 580 is FSRM: Bochs says that moves of a few bytes are fast and not that any are, and Linux then
# chooses a memmove that never ends.
BOOT = """default linux
label linux
kernel /linux
append initrd=/initrd console=ttyS0 quiet nokaslr mitigations=off acpi=off clearcpuid=580 {more}
"""
# Few instructions to a second, so that waiting, as for the serial port, takes few.
MACHINE = """cpu: model=sapphire_rapids, count={processors}, ips=20000000, reset_on_triple_fault=0
memory: guest=1024, host=1024
romimage: file={bochs}/bios/BIOS-bochs-latest, options=fastboot
vgaromimage: file={bochs}/bios/VGABIOS-lgpl-latest.bin
ata0-master: type=cdrom, path={work}/disk.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev={work}/serial.txt
display_library: nogui
clock: sync=none
log: {work}/bochs.log
panic: action=fatal
"""


def with_libraries(programs: list[Path]) -> dict[str, Path]:
    """Return files of the guest, and where they are here: programs and what they load."""
    files = {f"/bin/{program.name}": program for program in programs}
    for program in programs:
        loaded = subprocess.run(["ldd", program], capture_output=True, text=True).stdout
        files.update((path, Path(path)) for path in re.findall(r"(/\S+) \(0x", loaded))
    return files


def initramfs(files: dict[str, Path], init: str) -> Iterator[bytes]:
    """Yield the parts of a cpio archive with these files and the program /init."""

    def entry(name: str, mode: int, body: bytes) -> bytes:
        path = name.encode() + b"\0"
        words = [0, mode, 0, 0, 1, 0, len(body), 0, 0, 0, 0, len(path), 0]
        head = b"070701" + b"".join(b"%08X" % word for word in words) + path
        return head + b"\0" * (-len(head) % 4) + body + b"\0" * (-len(body) % 4)

    for folder in sorted({str(parent) for name in files for parent in Path(name).parents}):
        if folder != "/":
            yield entry(folder[1:], 0o40755, b"")
    for name, path in files.items():
        yield entry(name[1:], 0o100755, path.read_bytes())
    yield entry("init", 0o100755, init.encode())
    yield entry("TRAILER!!!", 0, b"")


def write_disk(path: Path, files: dict[str, Path]) -> None:
    """Write a CD with these files in its root, from which ISOLINUX boots."""
    disk = pycdlib.PyCdlib()
    disk.new(interchange_level=4)
    for name, file in files.items():
        disk.add_file(str(file), f"/{name}")
    disk.add_eltorito("/isolinux.bin", boot_load_size=4, boot_info_table=True)
    disk.write(str(path))
    disk.close()


def show(run: "subprocess.Popen[bytes]", serial: Path, until: float) -> str:
    """Print what the guest says until it has done all, or the emulator or the time ends."""
    text = ""
    while True:
        ended = run.poll() is not None or text.endswith("== end\r\n") or time.time() > until
        now = serial.read_bytes().decode(errors="replace") if serial.exists() else ""
        print(now[len(text) :].replace("\r", ""), end="", flush=True)
        text = now
        if ended:
            run.terminate()
            return text
        time.sleep(0.5)


def main() -> int:
    """Do what the module says."""
    parser = argparse.ArgumentParser(description="Run programs on an emulated processor with AMX")
    parser.add_argument("--bochs", type=Path, required=True, help="folder in which it was built")
    parser.add_argument("--debian", type=Path, required=True, help="folder of unpacked packages")
    parser.add_argument("--work", type=Path, required=True, help="folder to write to")
    parser.add_argument("--minutes", type=float, default=60, help="the most that all may take")
    parser.add_argument("--processors", type=int, default=1, help="if Bochs was built for several")
    parser.add_argument("--kernel", default="", help="more of its command line")
    parser.add_argument("--program", type=Path, action="append", default=[], help="for /bin")
    parser.add_argument("commands", nargs="+", help="lines of the guest's shell")
    args = parser.parse_args()
    work = args.work
    work.mkdir(parents=True, exist_ok=True)
    init = INIT + "".join(COMMAND.format(quoted=shlex.quote(c)) for c in args.commands)
    files = with_libraries([args.debian / "bin/busybox", *args.program])
    (work / "initrd").write_bytes(b"".join(initramfs(files, init + "echo == end; sleep 1000\n")))
    (work / "isolinux.cfg").write_text(BOOT.format(more=args.kernel))
    (kernel,) = (args.debian / "boot").glob("vmlinuz-*")
    isolinux = args.debian / "usr/lib/ISOLINUX/isolinux.bin"
    loader = args.debian / "usr/lib/syslinux/modules/bios/ldlinux.c32"
    boot = {"isolinux.bin": isolinux, "ldlinux.c32": loader, "linux": kernel}
    write_disk(work / "disk.iso", boot | {n: work / n for n in ("isolinux.cfg", "initrd")})
    machine, serial = work / "bochsrc", work / "serial.txt"
    machine.write_text(MACHINE.format(**vars(args)))
    serial.unlink(missing_ok=True)
    with (work / "bochs.txt").open("w") as out:
        command = [args.bochs / "bochs", "-q", "-f", machine]
        run = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        said = show(run, serial, time.time() + 60 * args.minutes)
    statuses = re.findall(r"^== status (\d+)", said, re.M)
    return 0 if statuses == ["0"] * len(args.commands) else 1


if __name__ == "__main__":
    sys.exit(main())

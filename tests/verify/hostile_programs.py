"""Programs that mean harm, by name. None of them may reach, keep, fake or outlast anything.

SCRIPTS run as programs of their own. A script writes `REACHED` when it got what it wanted, and prints what it
read. `CANARY`, `HOME`, `PORT`, `PARENT` and `INTERPRETER` stand for a file in the home folder, that folder, a
server's port, our process, and the folders of Python.

CHEATS are programs that want to pass tests without solving them; each comes with tests of its own where the
general ones, of a function `f` that squares, would not tempt it.
"""

from textwrap import dedent

SCRIPTS: dict[str, str] = {
    # --- Many processes and threads
    "fork bomb": """
        import os
        while True:
            try:
                os.fork()
            except OSError:
                pass
    """,
    "fork by the system call": """
        import ctypes
        libc = ctypes.CDLL(None)
        if [n for n in (57, 58, 56, 435, 220) if libc.syscall(n, 17, 0, 0, 0, 0) > 0]:
            print("REACHED")
    """,
    "fork by the other ABI": """
        import ctypes
        libc = ctypes.CDLL(None)
        if libc.syscall(0x40000000 + 57) >= 0:
            print("REACHED")
    """,
    "fork by 32-bit code": """
        import ctypes, mmap
        code = mmap.mmap(-1, 4096, prot=7)
        code.write(b"\\xb8\\x02\\x00\\x00\\x00\\xcd\\x80\\xc3")  # mov eax, 2; int 0x80; ret
        address = ctypes.addressof(ctypes.c_char.from_buffer(code))
        if ctypes.CFUNCTYPE(ctypes.c_int)(address)() > 0:
            print("REACHED")
    """,
    "a shell": """
        import os, subprocess
        for start in (os.system, subprocess.getoutput):
            try:
                print(start("echo REACHED"))
            except OSError as error:
                print(error)
    """,
    "a spawned process": """
        import os
        pid = os.posix_spawn("/usr/bin/env", ["env"], {})
        print("REACHED", pid)
    """,
    "multiprocessing": """
        import multiprocessing
        multiprocessing.get_context("fork").Process(target=print, args=("REACHED",)).start()
    """,
    "another program in its place": """
        import os
        os.execv("/bin/sh", ["sh", "-c", "while :; do :; done"])
    """,
    "a daemon": """
        import os, time
        for step in (os.setsid, os.fork, os.setsid, os.fork):
            try:
                step()
                print("REACHED" if step is os.fork else "")
            except OSError:
                pass
        time.sleep(60)
    """,
    "thread bomb": """
        import threading, time
        while True:
            try:
                threading.Thread(target=time.sleep, args=(60,)).start()
            except RuntimeError:
                pass
    """,
    "bomb of small threads": """
        import threading, time
        threading.stack_size(32768)
        while True:
            try:
                threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
            except (RuntimeError, MemoryError):
                pass
    """,
    # --- Memory and disk
    "a great bytearray": "kept = bytearray(8 << 30)",
    "memory by and by": """
        kept = []
        while True:
            kept.append(bytearray(1 << 20))
    """,
    "memory whatever it costs": """
        kept = []
        while True:
            try:
                kept.append(bytearray(1 << 20))
            except MemoryError:
                pass
    """,
    "a great number": "print(9 ** 9 ** 9)",
    "mapped memory": """
        import mmap
        kept = []
        while True:
            kept.append(mmap.mmap(-1, 64 << 20))
            kept[-1].write(b"x" * (64 << 20))
    """,
    "files in memory": """
        import os
        for i in range(60):
            os.write(os.memfd_create(str(i)), b"x" * (8 << 20))
        print("REACHED")
    """,
    "System V memory": """
        import ctypes
        libc = ctypes.CDLL(None)
        if libc.shmget(0, 64 << 20, 0o1600) >= 0:
            print("REACHED")
    """,
    "shared memory": """
        from multiprocessing.shared_memory import SharedMemory
        SharedMemory(create=True, size=64 << 20)
        print("REACHED")
    """,
    "a full disk": """
        import errno
        for i in range(10_000):
            try:
                open(f"/tmp/{i}", "wb").write(b"x" * (1 << 20))
            except OSError as error:
                assert error.errno in (errno.ENOSPC, errno.EFBIG), error
                assert i <= 40, "REACHED"
                break
    """,
    "a great file": """
        with open("/tmp/great", "wb") as file:
            for _ in range(1000):
                file.write(b"x" * (1 << 20))
        print("REACHED")
    """,
    "a million files": """
        import os
        i = 0
        while True:
            i += 1
            os.close(os.open(f"/tmp/{i}", os.O_CREAT | os.O_WRONLY))
    """,
    "a bomb in an archive": """
        import zlib
        data = zlib.compress(bytes(100 << 20), 9)
        kept = [zlib.decompress(data) for _ in range(100)]
    """,
    "recursion without end": """
        import sys
        sys.setrecursionlimit(1 << 30)
        def f(n):
            return [f(n + 1)]
        f(0)
    """,
    "recursion in C": """
        import sys
        sys.setrecursionlimit(1 << 30)
        nested = []
        for _ in range(10_000_000):
            nested = [nested]
        repr(nested)
    """,
    "full pipes": """
        import os, socket
        kept = []
        for _ in range(10_000):
            pair = socket.socketpair()
            kept.append(pair)
            pair[0].setblocking(False)
            pair[0].send(b"x" * (1 << 20))
    """,
    "limits raised": """
        import resource
        for what in (resource.RLIMIT_AS, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE):
            try:
                resource.setrlimit(what, (1 << 40, 1 << 40))
                print("REACHED")
            except (OSError, ValueError):
                pass
    """,
    # --- Time
    "an endless loop": "while True: pass",
    "a deaf loop": """
        import signal, time
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_IGN)
        while True:
            time.sleep(60)
    """,
    "a loop in C": "sum(iter(int, 1))",
    "a regular expression": "import re; re.match('(a+)+$', 'a' * 40 + 'b')",
    "a thread that stays": """
        import threading, time
        threading.Thread(target=time.sleep, args=(60,)).start()
    """,
    "an exit that hangs": """
        import atexit, time
        atexit.register(time.sleep, 60)
    """,
    "waiting for input": """
        import os, sys
        sys.stdin.read()
        r, w = os.pipe()
        os.read(r, 1)
    """,
    "the main thread leaves": """
        import ctypes, threading, time
        threading.Thread(target=time.sleep, args=(60,)).start()
        ctypes.CDLL(None).pthread_exit(None)
    """,
    # --- Output
    "output without end": "while True: print('x' * 1000)",
    "errors without end": """
        import sys
        while True: sys.stderr.write('x' * 1000)
    """,
    "raw output on every descriptor": """
        import os
        while True:
            for fd in range(1, 64):
                try:
                    os.write(fd, b"x" * 65536)
                except OSError:
                    pass
    """,
    "closed and asleep": """
        import os, time
        for fd in range(64):
            try:
                os.close(fd)
            except OSError:
                pass
        time.sleep(60)
    """,
    "a flood and an exit": """
        import os
        os.write(1, b"x" * 60_000)
        os._exit(0)
    """,
    # --- Secrets
    "the canary": """
        print(open("CANARY").read())
    """,
    "the canary by other ways": """
        import os
        os.symlink("CANARY", "/tmp/link")
        for path in ("/tmp/link", "/proc/self/rootCANARY", "/proc/1/rootCANARY", "/proc/self/cwd/../CANARY",
                     "/oldrootCANARY", "/newrootCANARY"):
            try:
                print("REACHED", open(path).read())
            except OSError:
                pass
        os.link("CANARY", "/tmp/hard")
    """,
    "the canary's handle": """
        import ctypes, os
        libc = ctypes.CDLL(None, use_errno=True)
        handle = (ctypes.c_char * 200)()
        handle[0] = 128
        mount = ctypes.c_int()
        if libc.name_to_handle_at(-100, b"/usr", handle, ctypes.byref(mount), 0) == 0:
            print("REACHED")
    """,
    "its environment": """
        import os
        print(dict(os.environ))
    """,
    "everybody's environment": """
        import os
        for pid in os.listdir("/proc"):
            try:
                print(open(f"/proc/{pid}/environ").read())
            except OSError:
                pass
    """,
    "other processes": """
        import os
        pids = [pid for pid in os.listdir("/proc") if pid.isdigit()]
        print("REACHED" if len(pids) > 1 else "alone", pids)
    """,
    "every file there is": """
        import os
        private = {"/boot", "/run", "/sys", "/var/log", "/etc/passwd", "/etc/shadow", "/etc/hostname"}
        print([f"REACHED {path}" for path in private if os.path.exists(path)])
        for folder, folders, files in os.walk("HOME"):
            if folder in INTERPRETER:
                folders.clear()
            elif files:
                print("REACHED", folder, files)
    """,
    "passwords": "print('REACHED', open('/etc/shadow').read())",
    "our memory": """
        import os
        for pid in (PARENT, os.getppid(), 1):
            if pid not in (0, os.getpid()):
                try:
                    print("REACHED", open(f"/proc/{pid}/mem", "rb").name)
                except OSError:
                    pass
    """,
    "keys of the kernel": """
        import ctypes
        libc = ctypes.CDLL(None)
        if libc.syscall(250, 0, -3, 1) >= 0 or libc.syscall(248, b"user", b"a", b"b", 1, -3) >= 0:
            print("REACHED")
    """,
    # --- The network
    "our server": """
        import socket
        socket.create_connection(("127.0.0.1", PORT), timeout=0.5)
        print("REACHED")
    """,
    "our server without socket()": """
        import socket
        a, b = socket.socketpair()
        a.connect(("127.0.0.1", PORT))
        print("REACHED")
    """,
    "the world": """
        import socket
        socket.getaddrinfo("example.org", 443)
        print("REACHED")
    """,
    "a server of its own": """
        import socket
        socket.create_server(("127.0.0.1", 0))
        print("REACHED")
    """,
    # --- Other processes
    "kill the parent": """
        import os, signal
        for pid in (PARENT, os.getppid(), -1, -PARENT):
            try:
                os.kill(pid, signal.SIGKILL)
                print("REACHED")
            except OSError:
                pass
    """,
    "kill everybody by the system call": """
        import ctypes
        libc = ctypes.CDLL(None)
        for pid in range(2, 33_000):
            libc.syscall(234, pid, pid, 9)
    """,
    "stop the parent": """
        import os, signal
        os.kill(os.getppid(), signal.SIGSTOP)
        print("REACHED")
    """,
    "trace the parent": """
        import ctypes
        if ctypes.CDLL(None).ptrace(16, PARENT, 0, 0) == 0 or ctypes.CDLL(None).ptrace(0, 0, 0, 0) == 0:
            print("REACHED")
    """,
    "outlive the parent": """
        import ctypes, time
        if ctypes.CDLL(None).prctl(1, 0, 0, 0, 0) == 0:
            print("REACHED")
        time.sleep(60)
    """,
    "say that it was killed": """
        import os
        os._exit(137)
    """,
    "a name that is no text": """
        import ctypes, time
        ctypes.CDLL(None).prctl(15, b"\\xff", 0, 0, 0)
        time.sleep(60)
    """,
    "kill itself at the end of its time": """
        import resource
        for what in (resource.RLIMIT_CPU, 15):
            try:
                resource.setrlimit(what, (1, 1))
                print("REACHED")
            except (OSError, ValueError):
                pass
    """,
    "a shell that ends its own time": """
        import os
        os.execv("/bin/sh", ["sh", "-c", "ulimit -t 1 && echo REACHED; kill -9 $$"])
    """,
    "kill itself by the call": """
        import signal, threading
        for kill in (signal.raise_signal, lambda number: signal.pthread_kill(threading.get_ident(), number)):
            try:
                kill(signal.SIGKILL)
            except OSError:
                pass
    """,
    "kill itself by a file": """
        import fcntl, os
        r, w = os.pipe()
        fcntl.fcntl(r, fcntl.F_SETOWN, os.getpid())
        try:
            fcntl.fcntl(r, 10, 9)
        except OSError:
            pass
        fcntl.fcntl(r, fcntl.F_SETFL, os.O_ASYNC)
        os.write(w, b"x")
    """,
    "kill itself by a timer": """
        import ctypes, time
        libc = ctypes.CDLL(None)
        event = (ctypes.c_int * 16)(0, 0, 9)
        timer = ctypes.c_void_p()
        if libc.timer_create(1, event, ctypes.byref(timer)) == 0:
            libc.timer_settime(timer, 0, (ctypes.c_long * 4)(0, 0, 0, 1000), None)
            time.sleep(1)
    """,
    "a segmentation fault": "import ctypes; ctypes.string_at(0)",
    "an abort": "import os; os.abort()",
    # --- The way out
    "namespaces": """
        import ctypes
        libc = ctypes.CDLL(None)
        if libc.unshare(0x10000000) == 0 or libc.unshare(0x20000) == 0:
            print("REACHED")
    """,
    "the first process's namespaces": """
        import ctypes, os
        for name in os.listdir("/proc/1/ns"):
            fd = os.open(f"/proc/1/ns/{name}", os.O_RDONLY)
            if ctypes.CDLL(None).setns(fd, 0) == 0:
                print("REACHED", name)
    """,
    "mounts": """
        import ctypes
        libc = ctypes.CDLL(None)
        if libc.mount(b"none", b"/tmp", b"tmpfs", 0, None) == 0 or libc.umount2(b"/usr", 2) == 0:
            print("REACHED")
        if libc.mount(None, b"/", None, 32 | 4096, None) == 0 or libc.chroot(b"/tmp") == 0:
            print("REACHED")
    """,
    "written outside": """
        import os, sys
        for path in ("/usr/bin/evil", "/usr/lib/evil", "/etc/evil", "/evil", "/dev/evil", "/bin/evil",
                     sys.prefix + "/evil", sys.base_prefix + "/evil", os.__file__, "CANARY", "/var/tmp/evil",
                     "/dev/shm/evil", "/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger",
                     "/proc/self/oom_score_adj", "/sys/power/state"):
            try:
                open(path, "a").close()
                print("REACHED", path)
            except OSError:
                pass
    """,
    "removed outside": """
        import os, shutil, sys
        for path in (os.__file__, sys.executable, "CANARY", "/usr/bin/env"):
            try:
                os.remove(path)
                print("REACHED", path)
            except OSError:
                pass
            try:
                os.chmod(path, 0o777)
                print("REACHED", path)
            except OSError:
                pass
    """,
    "devices": """
        import os, stat
        for path in ("/dev/sda", "/dev/vda", "/dev/mem", "/dev/kmsg", "/dev/tty", "/dev/ptmx", "/dev/fuse"):
            try:
                os.open(path, os.O_RDWR)
                print("REACHED", path)
            except OSError:
                pass
        os.mknod("/tmp/disk", stat.S_IFBLK | 0o600, os.makedev(8, 0))
        os.open("/tmp/disk", os.O_RDONLY)
        print("REACHED")
    """,
    "somebody else": """
        import os
        for change in (lambda: os.setuid(0), lambda: os.setgid(0), lambda: os.setgroups([0])):
            try:
                change()
                print("REACHED")
            except OSError:
                pass
    """,
    "keys for our terminal": """
        import fcntl, termios
        for fd in (0, 1, 2):
            try:
                fcntl.ioctl(fd, termios.TIOCSTI, b"x")
                print("REACHED")
            except OSError:
                pass
    """,
    "our files in its hands": """
        import os
        for fd in os.listdir("/proc/self/fd"):
            for mode in (os.O_RDWR, os.O_WRONLY | os.O_TRUNC):
                try:
                    if os.path.isfile(f"/proc/self/fd/{fd}"):
                        os.write(os.open(f"/proc/self/fd/{fd}", mode), b"x")
                        print("REACHED", fd, os.readlink(f"/proc/self/fd/{fd}"))
                except OSError:
                    pass
    """,
    "io_uring and its like": """
        import ctypes
        libc = ctypes.CDLL(None)
        room = ctypes.create_string_buffer(1000)
        for number in (425, 321, 323, 298, 300):
            if libc.syscall(number, 1, room, 0, 0, 0) >= 0:
                print("REACHED", number)
    """,
}

SQUARES = ["assert f(3) == 9", "assert f(12) == 144", "assert sorted([f(2), f(1)]) == [1, 4]"]
"""The general tests."""

CHEATS: dict[str, str | tuple[str, list[str]]] = {
    # --- Ends before its time
    "exit": "import sys; sys.exit(0)",
    "exit at once": "import os; os._exit(0)",
    "exit in a call": """
        def f(x):
            raise SystemExit(0)
    """,
    "exit at once in a call": """
        import os
        def f(x):
            os._exit(0)
    """,
    "success on the way out": """
        import atexit, os
        atexit.register(os._exit, 0)
        def f(x):
            return 9
    """,
    "the end of a loop": (
        """
        def f(x):
            raise StopIteration
        """,
        ["assert all(map(lambda pair: f(pair[0]) == pair[1], [(3, 9), (4, 16)]))"],
    ),
    "an attribute that ends a loop": (
        """
        class Any:
            def __getattr__(self, name): raise StopIteration
            def __getitem__(self, key): raise StopIteration
            def __len__(self): raise StopIteration
        def f(x):
            return Any()
        """,
        ["assert all(map(lambda x: f(x).value == 9 and f(x)[0] == len(f(x)) == 9, [3]))"],
    ),
    "an exit where one is not expected": (
        """
        def f(x):
            raise SystemExit
        """,
        ["try:\n    f(3) == 9\nexcept ValueError:\n    pass"],
    ),
    "a question about a function": (
        """
        def f(g):
            return g.secret
        """,
        ["assert f(lambda x: x) == 9"],
    ),
    "a question about nothing": """
        import os
        def f(x):
            for fd in range(3, 64):
                try:
                    os.write(fd, b'["get", 0, "secret"]\\n')
                except OSError:
                    pass
    """,
    "interrupt": """
        def f(x):
            raise KeyboardInterrupt
    """,
    "nothing more to say": """
        import os, time
        def f(x):
            for fd in range(3, 64):
                try:
                    os.close(fd)
                except OSError:
                    pass
            time.sleep(60)
    """,
    # --- Says that it passed
    "the report": """
        import os
        for fd in range(1, 64):
            try:
                os.write(fd, b'{"reason": ""}\\n')
            except OSError:
                pass
        def f(x):
            return 9
    """,
    "answers before the questions": """
        import os
        for fd in range(3, 64):
            try:
                os.write(fd, b'["value", {"f": 9}]\\n["value", [9, []]]\\n["value", [144, []]]\\n')
            except OSError:
                pass
    """,
    "a message that is none": """
        import os
        def f(x):
            for fd in range(3, 64):
                try:
                    os.write(fd, b'["value", [["eval", "9"], []]]\\n')
                except OSError:
                    pass
    """,
    "a message too deep": """
        import os
        def f(x):
            for fd in range(3, 64):
                try:
                    os.write(fd, b'[' * 100_000 + b'\\n')
                except OSError:
                    pass
    """,
    "a message that fills the memory": """
        import os
        def f(x):
            line = b'["value", [["list"' + b',["list"]' * 1_000_000 + b'], []]]\\n'
            for fd in range(3, 64):
                try:
                    while line:
                        line = line[os.write(fd, line):]
                except OSError:
                    pass
    """,
    "questions instead of answers": """
        import os
        def f(x):
            for fd in range(3, 64):
                try:
                    while True:
                        os.write(fd, b'["get", 0, "__globals__"]\\n')
                except OSError:
                    pass
    """,
    "the tests' own objects": """
        import os
        def f(x):
            for fd in range(3, 64):
                try:
                    os.write(fd, b'["value", [["yours", 0], []]]\\n')
                except OSError:
                    pass
    """,
    # --- Is equal to everything
    "equal to everything": """
        class Any:
            def __eq__(self, other): return True
            def __ne__(self, other): return False
            def __lt__(self, other): return True
            def __hash__(self): return 9
        def f(x):
            return Any()
    """,
    "a number equal to everything": """
        class Any(int):
            def __eq__(self, other): return True
            def __lt__(self, other): return True
            __hash__ = int.__hash__
        def f(x):
            return Any(5)
    """,
    "a list that agrees": (
        """
        class Any(list):
            def __eq__(self, other): return True
            def __contains__(self, other): return True
        def f(x):
            return Any()
        """,
        ["assert f(3) == [9]", "assert 9 in f(3)"],
    ),
    "a class equal to everything": """
        class Meta(type):
            def __eq__(self, other): return True
            __hash__ = type.__hash__
        class Any(metaclass=Meta): pass
        def f(x):
            return Any
    """,
    "a number whose difference is nothing": (
        """
        class Any:
            def __sub__(self, other): return 0
            __rsub__ = __sub__
            def __abs__(self): return 0
            def __float__(self): return 9.0
        def f(x):
            return Any()
        """,
        ["assert abs(f(3) - 9) < 1e-6"],
    ),
    "something whose class is a number": (
        """
        class Any:
            __class__ = int
            def __eq__(self, other): return True
        def f(x):
            return Any()
        """,
        ["assert isinstance(f(3), int) and f(3) == 9"],
    ),
    "not a number": ("def f(x): return float('nan')", ["assert abs(f(3) - 9) < 1e-6"]),
    "true in place of a number": "def f(x): return True",
    # --- Changes what the tests stand on
    "other built-ins": (
        """
        import builtins
        builtins.abs = builtins.sorted = builtins.isinstance = lambda *_: 0
        builtins.all = builtins.any = builtins.bool = lambda *_: True
        builtins.AssertionError = ValueError
        abs = sorted = all = any = lambda *_: True
        def f(x):
            return 5
        """,
        ["assert all([f(3) == 9])", "assert abs(f(3) - 9) < 1e-6"],
    ),
    "another mathematics": (
        """
        import math, sys, types
        math.isclose = lambda *_, **__: True
        sys.modules["math"] = types.SimpleNamespace(isclose=math.isclose)
        def f(x):
            return 5
        """,
        ["import math\nassert math.isclose(f(3), 9)"],
    ),
    "a check of its own": (
        """
        def check(candidate): pass
        def f(x):
            return 5
        """,
        ["def check(candidate):\n    assert candidate(3) == 9", "check(f)"],
    ),
    "the tests' frame": """
        import sys
        def f(x):
            frame = sys._getframe()
            while frame:
                for value in (*frame.f_code.co_consts, *frame.f_locals.values()):
                    if value in (9, 144):
                        return value
                frame = frame.f_back
    """,
    "everything in memory": """
        import gc
        def f(x):
            texts = [each for each in gc.get_objects() if isinstance(each, (list, dict, tuple))]
            for each in texts:
                if "f(3) == 9" in repr(each)[:10_000]:
                    return 9
    """,
    "the source on the disk": """
        import os
        def f(x):
            for folder in ("/tmp", "/proc/self/fd", os.getcwd()):
                for name in os.listdir(folder):
                    path = os.path.join(folder, name)
                    if os.path.isfile(path) and "== 9" in open(path, errors="replace").read(10_000):
                        return 9
    """,
    "the tests' memory": """
        import os
        def f(x):
            for pid in os.listdir("/proc"):
                if pid.isdigit() and int(pid) != os.getpid():
                    return 9
    """,
    "the interpreter's code": """
        import ctypes, gc, sys
        def f(x):
            for each in gc.get_objects():
                if type(each).__name__ == "Peer":
                    for key in list(vars(each)):
                        setattr(each, key, lambda *_: True)
            return 5
    """,
    # --- Uses up
    "an endless call": """
        def f(x):
            while True: pass
    """,
    "an endless answer": """
        def f(x):
            while True:
                yield 9
    """,
    "an answer that fills the memory": "def f(x): return [0] * (1 << 30)",
    "an answer of a hundred megabytes": "def f(x): return 'x' * 100_000_000",
    "an answer that holds itself": """
        def f(x):
            answer = []
            answer.append(answer)
            return answer
    """,
    "output without end in a call": """
        def f(x):
            while True: print('x' * 1000)
    """,
    "an endless beginning": "while True: pass",
    "an error whose text is endless": """
        class Odd(Exception):
            def __str__(self):
                while True: pass
        def f(x):
            raise Odd
    """,
    "an error whose text is an error": """
        class Odd(Exception):
            def __str__(self):
                raise Odd
        def f(x):
            raise Odd
    """,
    "no program": "I would square the number.",
    "no function": "g = 9",
    "only the first": "def f(x): return 9",
}


def script(name: str, **values: object) -> str:
    """A script with its placeholders filled in."""
    text = dedent(SCRIPTS[name]).strip()
    for key, value in values.items():
        text = text.replace(key, str(value))
    return text + "\n"


def cheat(name: str) -> tuple[str, list[str]]:
    """A cheating program, and the tests that it is put to."""
    entry = CHEATS[name]
    program, tests = entry if isinstance(entry, tuple) else (entry, SQUARES)
    return dedent(program).strip() + "\n", tests


def honest() -> str:
    """A program that does what the general tests ask for."""
    return "def f(x):\n    return x * x\n"

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"filippo.io/age"
	"filippo.io/age/armor"
	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	// Under the race detector a process takes a second to exit, and here are many.
	os.Setenv("GORACE", os.Getenv("GORACE")+" atexit_sleep_ms=0")
	testscript.Main(m, map[string]func(){
		"scale":        main,
		"unprivileged": unprivileged,
		"smalldisk":    smallDisk,
		"ondisk":       onDisk,
		"locked":       lockedStore,
	})
}

// TestScript runs testdata/script: one script for each verb and one for each kind of
// bad input. Besides testscript's own commands they have those below.
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", filepath.Join(e.WorkDir, "home"))
			e.Setenv("SCALE_STORE", filepath.Join(e.WorkDir, "store"))
			e.Setenv("GORACE", os.Getenv("GORACE"))
			e.Values[begunKey{}] = &begun{}
			e.Values[scriptNodeKey{}] = &scriptNode{}
			return os.Mkdir(filepath.Join(e.WorkDir, "home"), 0o755)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":    cmdExits,
			"field":    cmdField,
			"fill":     cmdFill,
			"poke":     cmdPoke,
			"raw":      cmdRaw,
			"untar":    cmdUntar,
			"begin":    cmdBegin,
			"end":      cmdEnd,
			"changing": cmdChanging,
			"node":     cmdNode,
			"nodeends": cmdNodeEnds,
		},
		RequireUniqueNames: true,
	})
}

// exits CODE COMMAND... runs a command that must end with this code.
func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	if got := codeOf(ts, ts.Exec(args[1], args[2:]...)); got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

func codeOf(ts *testscript.TestScript, err error) int {
	var e *exec.ExitError
	if errors.As(err, &e) {
		return e.ExitCode()
	}
	ts.Check(err)
	return 0
}

// field VAR NAME FILE sets an environment variable to a field of the first JSON object
// in a file, which may be stdout or stderr.
func cmdField(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: field VAR NAME FILE")
	}
	var v map[string]any
	d := json.NewDecoder(strings.NewReader(ts.ReadFile(args[2])))
	d.UseNumber()
	ts.Check(d.Decode(&v))
	f, ok := v[args[1]]
	if !ok {
		ts.Fatalf("no field %q in %v", args[1], v)
	}
	ts.Setenv(args[0], fmt.Sprint(f))
}

// fill FILE MIB writes bytes that do not compress and are always the same.
func cmdFill(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: fill FILE MIB")
	}
	mib, err := strconv.Atoi(args[1])
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), noise(mib<<20), 0o644))
}

// noise returns n bytes of a xorshift generator.
func noise(n int) []byte {
	b := make([]byte, 0, n+8)
	for x := uint64(88172645463325252); len(b) < n; {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b = append(b, byte(x), byte(x>>8), byte(x>>16), byte(x>>24), byte(x>>32), byte(x>>40), byte(x>>48), byte(x>>56))
	}
	return b[:n]
}

// poke FILE OFFSET flips a bit; a negative offset counts from the end.
func cmdPoke(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: poke FILE OFFSET")
	}
	off, err := strconv.Atoi(args[1])
	ts.Check(err)
	name := ts.MkAbs(args[0])
	if found, err := filepath.Glob(name); err == nil && len(found) > 0 {
		name = found[0]
	}
	b, err := os.ReadFile(name)
	ts.Check(err)
	if off < 0 {
		off += len(b)
	}
	b[off] ^= 0x10
	ts.Check(os.WriteFile(name, b, 0o600))
}

// raw OP NAME makes what a script cannot write down. NAME is a quoted Go string.
func cmdRaw(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: raw file|fifo|socket NAME")
	}
	name, err := strconv.Unquote(`"` + args[1] + `"`)
	ts.Check(err)
	name = ts.MkAbs(name)
	switch args[0] {
	case "file":
		ts.Check(os.WriteFile(name, []byte(name), 0o644))
	case "fifo":
		ts.Check(unix.Mkfifo(name, 0o600))
	case "socket":
		ts.Check(unix.Mknod(name, unix.S_IFSOCK|0o600, 0))
	default:
		ts.Fatalf("raw %s: unknown", args[0])
	}
}

// untar AGEFILE PASSPHRASEFILE DIR decrypts exported keys as its user would.
func cmdUntar(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: untar AGEFILE PASSPHRASEFILE DIR")
	}
	id, err := age.NewScryptIdentity(strings.TrimSpace(ts.ReadFile(args[1])))
	ts.Check(err)
	r, err := age.Decrypt(armor.NewReader(strings.NewReader(ts.ReadFile(args[0]))), id)
	ts.Check(err)
	dir := ts.MkAbs(args[2])
	ts.Check(os.Mkdir(dir, 0o700))
	cmd := exec.Command("tar", "-x", "-C", dir)
	cmd.Stdin = r
	ts.Check(cmd.Run())
}

// begun is a command in the background that waits for more standard input.
type begun struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stderr bytes.Buffer
}

type begunKey struct{}

// begin COMMAND... starts a command and returns when it has read 8 MiB of its standard
// input and wants more.
func cmdBegin(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: begin COMMAND...")
	}
	b := ts.Value(begunKey{}).(*begun)
	path, err := exec.LookPath(args[0])
	ts.Check(err)
	b.cmd = exec.Command(path, args[1:]...)
	b.cmd.Dir = ts.Getenv("WORK")
	b.cmd.Env = []string{"PATH=" + ts.Getenv("PATH"), "HOME=" + ts.Getenv("HOME"), "SCALE_STORE=" + ts.Getenv("SCALE_STORE"), "GORACE=" + ts.Getenv("GORACE")}
	b.cmd.Stderr = &b.stderr
	b.stdin, err = b.cmd.StdinPipe()
	ts.Check(err)
	ts.Check(b.cmd.Start())
	ts.Defer(func() {
		b.cmd.Process.Kill() // fails if it has ended, which is as good
		b.cmd.Wait()
	})
	// No pipe holds that much: most of it was read when this returns.
	_, err = b.stdin.Write(noise(8 << 20))
	ts.Check(err)
}

// end CODE [SIGNAL] ends that command's input, or sends it a signal, and waits for it
// to exit with the code. Its standard error is then in the file begun.stderr.
func cmdEnd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 || len(args) > 2 {
		ts.Fatalf("usage: end CODE [SIGNAL]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	b := ts.Value(begunKey{}).(*begun)
	if len(args) == 2 {
		ts.Check(b.cmd.Process.Signal(unix.SignalNum(args[1])))
	} else {
		ts.Check(b.stdin.Close())
	}
	got := codeOf(ts, b.cmd.Wait())
	ts.Check(os.WriteFile(ts.MkAbs("begun.stderr"), b.stderr.Bytes(), 0o644))
	if got != want {
		ts.Fatalf("exit code %d, want %d\n%s", got, want, &b.stderr)
	}
}

// changing grow|shrink|touch FILE CODE COMMAND... runs a command while the file is
// changed all the time.
func cmdChanging(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 4 {
		ts.Fatalf("usage: changing grow|shrink|touch FILE CODE COMMAND...")
	}
	f, err := os.OpenFile(ts.MkAbs(args[1]), os.O_RDWR, 0)
	ts.Check(err)
	defer f.Close()
	st, err := f.Stat()
	ts.Check(err)
	size := st.Size()
	change := func(i int64) error {
		switch args[0] {
		case "grow":
			return f.Truncate(size + i%1000)
		case "shrink":
			return f.Truncate(size/2 + (i+1)%2*size/2)
		}
		_, err := f.WriteAt([]byte{byte(i)}, size-1)
		return err
	}
	// The change goes on from before the command reads until after it.
	ts.Check(change(1))
	stop, stopped := make(chan struct{}), make(chan error, 1)
	go func() {
		for i := int64(2); ; i++ {
			select {
			case <-stop:
				stopped <- nil
				return
			default:
			}
			if err := change(i); err != nil {
				stopped <- err
				return
			}
		}
	}()
	cmdExits(ts, false, args[2:])
	close(stop)
	ts.Check(<-stopped)
}

// unprivileged COMMAND... runs a command for which file permissions hold, also where
// the tests run as root.
func unprivileged() {
	runtime.LockOSThread() // capabilities belong to a thread; exec keeps those of this one
	if os.Geteuid() == 0 {
		for _, c := range []uintptr{unix.CAP_DAC_OVERRIDE, unix.CAP_DAC_READ_SEARCH, unix.CAP_FOWNER} {
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil {
				fail("drop capability %d: %v", c, err)
			}
		}
	}
	become(os.Args[1:])
}

// smalldisk MIB DIR COMMAND... runs a command for which DIR is a file system of its
// own of that size. Where no user may mount one, the command gets a limit for the size
// of files instead, which ends the writes of a store in the middle as well.
func smallDisk() {
	inner := append([]string{"ondisk"}, os.Args[1:]...)
	for _, flags := range []uintptr{unix.CLONE_NEWNS, unix.CLONE_NEWNS | unix.CLONE_NEWUSER} {
		path, err := exec.LookPath(inner[0])
		if err != nil {
			fail("%v", err)
		}
		cmd := exec.Command(path, inner[1:]...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
		if flags&unix.CLONE_NEWUSER != 0 {
			cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
			cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
		}
		var e *exec.ExitError
		switch err := cmd.Run(); {
		case errors.As(err, &e) && e.ExitCode() == cannotMount:
		case errors.As(err, &e):
			os.Exit(e.ExitCode())
		case err == nil:
			os.Exit(0)
		}
	}
	mib, err := strconv.Atoi(os.Args[1])
	if err != nil {
		fail("%v", err)
	}
	limit := uint64(mib) << 20 / 4
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
		fail("limit the size of files: %v", err)
	}
	os.Setenv("LIMITED", "1")
	become(os.Args[3:])
}

const cannotMount = 99

func onDisk() {
	syscall.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") // not ours to change where it fails
	if err := syscall.Mount("tmpfs", os.Args[2], "tmpfs", 0, "size="+os.Args[1]+"m,mode=700"); err != nil {
		os.Exit(cannotMount)
	}
	become(os.Args[3:])
}

func become(args []string) {
	path, err := exec.LookPath(args[0])
	if err == nil {
		err = syscall.Exec(path, args, os.Environ())
	}
	fail("%s: %v", args[0], err)
}

func fail(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	os.Exit(98)
}

// TestScriptsCoverVerbs asks for a script for each verb.
func TestScriptsCoverVerbs(t *testing.T) {
	for _, c := range newApp().command().Commands() {
		found, err := filepath.Glob(filepath.Join("testdata", "*", c.Name()+".txtar"))
		if (err != nil || len(found) == 0) && !slices.Contains([]string{"completion", "help"}, c.Name()) {
			t.Errorf("no script for %q", c.CommandPath())
		}
	}
}

package grpcapi

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/koii-network/scale/store"
)

// longDir returns a directory whose path does not fit into the address of a socket.
func longDir(t *testing.T) string {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long/", 40))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// listening opens the private socket of dir and answers each connection with one byte.
func listening(t *testing.T, dir string) net.Listener {
	t.Helper()
	l, err := ListenPrivate(dir)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Write([]byte("x"))
			c.Close()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	return l
}

func TestPrivateSocket(t *testing.T) {
	for _, dir := range []string{t.TempDir(), longDir(t)} {
		if _, err := DialPrivate(t.Context(), dir); !errors.Is(err, ErrNotServed) {
			t.Errorf("nobody listens, error %v", err)
		}
		l := listening(t, dir)
		path := filepath.Join(dir, SocketFile)
		fi, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		if fi.Mode() != os.ModeSocket|0o600 {
			t.Errorf("mode %v", fi.Mode())
		}
		c, err := DialPrivate(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(c); string(b) != "x" || err != nil {
			t.Errorf("read %q, %v", b, err)
		}
		c.Close()
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("after close: %v", err)
		}
	}
}

// What a process that died has left is replaced; a socket that replaced ours stays.
func TestPrivateSocketStale(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, SocketFile)
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()
	if _, err := DialPrivate(t.Context(), dir); !errors.Is(err, ErrNotServed) {
		t.Errorf("a stale socket: %v", err)
	}
	first := listening(t, dir)
	second := listening(t, dir)
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	c, err := DialPrivate(t.Context(), dir)
	if err != nil {
		t.Fatalf("the first listener removed the socket of the second: %v", err)
	}
	c.Close()
	second.Close()
}

// Whatever else stands where the socket belongs is neither replaced nor followed.
func TestPrivateSocketPlanted(t *testing.T) {
	elsewhere := t.TempDir()
	listening(t, elsewhere)
	for name, plant := range map[string]func(path string) error{
		"link to a socket": func(p string) error { return os.Symlink(filepath.Join(elsewhere, SocketFile), p) },
		"dangling link":    func(p string) error { return os.Symlink(filepath.Join(elsewhere, "new"), p) },
		"file":             func(p string) error { return os.WriteFile(p, []byte("mine"), 0o600) },
		"pipe":             func(p string) error { return unix.Mkfifo(p, 0o600) },
		"directory":        func(p string) error { return os.Mkdir(p, 0o700) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, SocketFile)
			if err := plant(path); err != nil {
				t.Fatal(err)
			}
			before, err := os.Lstat(path)
			if err != nil {
				t.Fatal(err)
			}
			if l, err := ListenPrivate(dir); !errors.Is(err, store.ErrCorrupt) {
				if err == nil {
					l.Close()
				}
				t.Errorf("listen: %v", err)
			}
			if c, err := DialPrivate(t.Context(), dir); err == nil || errors.Is(err, ErrNotServed) {
				if err == nil {
					c.Close()
				}
				t.Errorf("dial: %v", err)
			}
			if after, err := os.Lstat(path); err != nil || !os.SameFile(before, after) {
				t.Errorf("it was replaced: %v", err)
			}
			if _, err := os.Lstat(filepath.Join(elsewhere, "new")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("a link was followed: %v", err)
			}
		})
	}
}

// Both sides ask the kernel who the other one is.
func TestPrivateSocketOtherUser(t *testing.T) {
	me, asked := uint32(os.Geteuid()), make(chan uint32, 8)
	refuse := func(uid uint32) bool { asked <- uid; return false }
	accept := func(_, _ uint32) bool { return true }

	dir := t.TempDir()
	l, err := listenPrivate(dir, refuse)
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan error, 1)
	go func() {
		_, err := l.Accept()
		accepted <- err
	}()
	c, err := dialPrivate(t.Context(), dir, accept)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("a refused connection: %v", err)
	}
	c.Close()
	if uid := <-asked; uid != me {
		t.Errorf("the listener asked about user %d, not %d", uid, me)
	}
	// The owner of the file is asked about, then the process that listens.
	for _, of := range []string{"file", "process"} {
		n := 0
		_, err := dialPrivate(t.Context(), dir, func(uid, owner uint32) bool {
			if uid != me || owner != me {
				t.Errorf("the client asked about user %d, owner %d", uid, owner)
			}
			n++
			return of == "process" && n == 1
		})
		if !errors.Is(err, ErrPeer) {
			t.Errorf("the %s is another user's: %v", of, err)
		}
	}
	l.Close()
	if err := <-accepted; !errors.Is(err, net.ErrClosed) {
		t.Errorf("accepted: %v", err)
	}
	if trustedUser(me+1) || !trustedUser(me) || !trustedUser(0) || trustedServer(me+1, me) {
		t.Error("trusted are this user and root, and nobody else")
	}
	if trustedServer(me+1, me+1) != (me == 0) {
		t.Error("only root trusts the owner of the directory")
	}
}

func TestPrivateSocketCancelled(t *testing.T) {
	dir := t.TempDir()
	listening(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := DialPrivate(ctx, dir); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

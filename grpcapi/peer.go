package grpcapi

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/koii-network/scale/store"
)

// SocketFile is the name of the private socket in a store's directory.
const SocketFile = store.SocketFile

var (
	// ErrNotServed: no process listens on the store's private socket.
	ErrNotServed = errors.New("no process serves the store")
	// ErrPeer: the other side of the private socket runs as another user.
	ErrPeer = errors.New("the other side of the socket is another user's")
)

// ListenPrivate listens on the private socket of the store in dir, whose lock the caller
// holds until the listener is closed: what an earlier owner left is replaced. The socket
// has mode 0600, and connections of other users than this one and root are closed before
// a byte is read. The listener removes the socket when it is closed.
//
// The path of dir may be longer than a socket's address (108 bytes).
func ListenPrivate(dir string) (net.Listener, error) {
	l, err := listenPrivate(dir, trustedUser)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", filepath.Join(dir, SocketFile), err)
	}
	return l, nil
}

func listenPrivate(dir string, trusted func(uid uint32) bool) (_ net.Listener, err error) {
	// A directory is held by descriptor: its path may be too long for an address, and may
	// come to name something else.
	d, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			d.Close()
		}
	}()
	dfd := int(d.Fd())
	var st unix.Stat_t
	switch err := unix.Fstatat(dfd, SocketFile, &st, unix.AT_SYMLINK_NOFOLLOW); {
	case errors.Is(err, unix.ENOENT):
	case err != nil:
		return nil, err
	case st.Mode&unix.S_IFMT != unix.S_IFSOCK:
		return nil, fmt.Errorf("something that is not a socket is in its place: %w; look at it and remove it", store.ErrCorrupt)
	default:
		if err := unix.Unlinkat(dfd, SocketFile, 0); err != nil {
			return nil, err
		}
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), SocketFile)
	defer f.Close() // FileListener duplicates it
	// The mode is set before there is a name, and nobody is let in before listen.
	if err := unix.Fchmod(fd, 0o600); err != nil {
		return nil, os.NewSyscallError("fchmod", err)
	}
	// bind makes the name and follows no link in its last component.
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: fdPath(d) + "/" + SocketFile}); err != nil {
		return nil, os.NewSyscallError("bind", err)
	}
	if err := unix.Fstatat(dfd, SocketFile, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return nil, err
	}
	if st.Mode&0o177 != 0 {
		return nil, fmt.Errorf("made with mode %04o: %w", st.Mode&0o777, ErrPeer)
	}
	if err := unix.Listen(fd, unix.SOMAXCONN); err != nil {
		return nil, os.NewSyscallError("listen", err)
	}
	l, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	return &privateListener{
		UnixListener: l.(*net.UnixListener), trusted: trusted,
		dir: d, dev: st.Dev, ino: st.Ino, path: filepath.Join(dir, SocketFile),
	}, nil
}

func fdPath(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }

type privateListener struct {
	*net.UnixListener
	trusted  func(uid uint32) bool
	dir      *os.File
	dev, ino uint64
	path     string
	once     sync.Once
	err      error
}

// Accept waits for the next connection of this user or root.
func (l *privateListener) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		cred, err := peerOf(c)
		if err != nil || !l.trusted(cred.Uid) {
			c.Close()
			continue
		}
		return &privateConn{UnixConn: c, uid: cred.Uid, pid: cred.Pid}, nil
	}
}

// Addr returns the path of the socket.
func (l *privateListener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

// Close stops listening and removes the socket, unless another one is there by now.
func (l *privateListener) Close() error {
	l.once.Do(func() {
		var st unix.Stat_t
		fd := int(l.dir.Fd())
		if unix.Fstatat(fd, SocketFile, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Dev == l.dev && st.Ino == l.ino {
			l.err = unix.Unlinkat(fd, SocketFile, 0)
		}
		l.err = errors.Join(l.err, l.UnixListener.Close(), l.dir.Close())
	})
	return l.err
}

// A privateConn is a connection whose other side has been checked by the kernel's word.
type privateConn struct {
	*net.UnixConn
	uid uint32
	pid int32
}

// DialPrivate connects to the process that serves the store in dir. The error wraps
// ErrNotServed if there is none, and ErrPeer if the socket is another user's.
func DialPrivate(ctx context.Context, dir string) (net.Conn, error) {
	c, err := dialPrivate(ctx, dir, trustedServer)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", filepath.Join(dir, SocketFile), err)
	}
	return c, nil
}

func dialPrivate(ctx context.Context, dir string, trusted func(uid, owner uint32) bool) (net.Conn, error) {
	d, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(d.Fd()), &st); err != nil {
		return nil, os.NewSyscallError("fstat", err)
	}
	owner := st.Uid
	// What is connected to is what was looked at: the descriptor names the socket itself,
	// and no link is followed to it.
	fd, err := unix.Openat(int(d.Fd()), SocketFile, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotServed
	}
	if err != nil {
		return nil, os.NewSyscallError("open", err)
	}
	sock := os.NewFile(uintptr(fd), SocketFile)
	defer sock.Close()
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, os.NewSyscallError("fstat", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return nil, fmt.Errorf("not a socket: %w", store.ErrCorrupt)
	}
	if !trusted(st.Uid, owner) {
		return nil, fmt.Errorf("%w (user id %d)", ErrPeer, st.Uid)
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", fdPath(sock))
	if errors.Is(err, unix.ECONNREFUSED) {
		return nil, ErrNotServed
	}
	if err != nil {
		return nil, err
	}
	// Who listens is what counts; the file could have been moved here by somebody.
	cred, err := peerOf(conn.(*net.UnixConn))
	if err == nil && !trusted(cred.Uid, owner) {
		err = fmt.Errorf("%w (user id %d)", ErrPeer, cred.Uid)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// trustedUser reports whether a process of that user may do what this one may.
func trustedUser(uid uint32) bool { return uid == 0 || uid == uint32(os.Geteuid()) }

// trustedServer reports whether a process of that user may serve a store to this one: of
// its own user, of root, and, if this one is root, of the owner of the directory, who can
// do in it what he likes anyway.
func trustedServer(uid, owner uint32) bool {
	return trustedUser(uid) || os.Geteuid() == 0 && uid == owner
}

// peerOf returns who the kernel says is at the other side: of a client's connection the
// process that listened, of a server's the one that connected.
func peerOf(c *net.UnixConn) (*unix.Ucred, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	var cerr error
	if err := raw.Control(func(fd uintptr) {
		cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return nil, err
	}
	return cred, os.NewSyscallError("getsockopt", cerr)
}

package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/koii-network/scale/grpcapi"
	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
)

// leastMemory is what the engine, its pools and the Go runtime take without any call.
const leastMemory = 256 << 20

// check returns the scope of client certificates and the log that the flags ask for, or
// what is wrong with them.
func (f *serveFlags) check(a *app) (client scalev1.Scope, log *slog.Logger, err error) {
	switch {
	case f.listen == "" && f.http == "":
		return 0, nil, usagef("both --listen and --http are empty: there is nothing to serve")
	case (f.cert == "") != (f.key == ""):
		return 0, nil, usagef("--tls-cert and --tls-key go together")
	case f.clientCA != "" && f.cert == "":
		return 0, nil, usagef("--client-ca needs --tls-cert and --tls-key")
	case f.requireToken && f.insecureNoAuth:
		return 0, nil, usagef("--require-token and --insecure-no-auth exclude each other")
	case f.shutdownTimeout < 0:
		return 0, nil, usagef("--shutdown-timeout is negative")
	case f.httpRequests < 1 || f.httpConnections < 1:
		return 0, nil, usagef("--max-http-requests and --max-http-connections must be 1 or more")
	}
	if f.clientScope != "none" {
		if client, err = grpcapi.ParseScope(f.clientScope); err != nil {
			return 0, nil, usagef("--client-scope: %w, or none", err)
		}
	}
	memory, err := parseSize(f.memory)
	if err != nil {
		return 0, nil, usagef("--memory: %w", err)
	}
	if memory < leastMemory {
		return 0, nil, usagef("--memory %s is less than 256M", f.memory)
	}
	setMemory(memory)
	// What callers send and are sent has as large a part of it as in 512 MiB.
	f.limits.ReceiveBytes, f.limits.SendBytes = int(memory/16*3), int(memory/8)
	f.wide = min(int64(memory/8), store.DefaultWide)
	if f.maxDataset != "" {
		if f.limits.DatasetBytes, err = parseSize(f.maxDataset); err != nil {
			return 0, nil, usagef("--max-dataset: %w", err)
		}
	}
	for _, l := range f.limit {
		name, value, ok := strings.Cut(l, "=")
		if !ok {
			return 0, nil, usagef("--limit %s: must be NAME=VALUE", l)
		}
		if err := f.limits.Set(name, value); err != nil {
			return 0, nil, usagef("--limit: %w", err)
		}
	}
	if err := f.limits.Check(); err != nil {
		return 0, nil, usagef("%w", err)
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.logLevel)); err != nil {
		return 0, nil, usagef("--log-level %q: must be debug, info, warn or error", f.logLevel)
	}
	o := &slog.HandlerOptions{Level: level}
	switch f.logFormat {
	case "text":
		log = slog.New(slog.NewTextHandler(a.stderr, o))
	case "json":
		log = slog.New(slog.NewJSONHandler(a.stderr, o))
	default:
		return 0, nil, usagef("--log-format %q: must be text or json", f.logFormat)
	}
	return client, log, nil
}

// openPort listens on an address; without one there is no port.
func openPort(ctx context.Context, flag, address string) (net.Listener, error) {
	if address == "" {
		return nil, nil
	}
	var c net.ListenConfig
	l, err := c.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", flag, address, err)
	}
	return l, nil
}

// loopback reports whether only this machine can reach a port. What it is bound to counts,
// not the name that was given.
func loopback(l net.Listener) bool {
	a, ok := l.Addr().(*net.TCPAddr)
	return ok && a.IP.IsLoopback()
}

// anonymous is what callers of a port may do who show nothing. On a port that other
// machines reach, callers from this one are no exception: a proxy calls from here too.
func (f *serveFlags) anonymous(l net.Listener) scalev1.Scope {
	if l != nil && (f.insecureNoAuth || loopback(l) && !f.requireToken) {
		return scalev1.Scope_SCOPE_READ
	}
	return scalev1.Scope_SCOPE_UNSPECIFIED
}

// exposed refuses to serve other machines without TLS and without anybody being asked who
// he is, unless that was asked for.
func (f *serveFlags) exposed(n *node) error {
	for _, p := range []struct {
		flag string
		port net.Listener
	}{{"--listen", n.grpc}, {"--http", n.http}} {
		if p.port == nil || loopback(p.port) {
			continue
		}
		at := fmt.Sprintf("%s: other machines can reach %v", p.flag, p.port.Addr())
		if n.tls == nil && !f.insecureNoTLS {
			return usagef("%s, and without TLS what they send and get, tokens too, can be read and changed on the way; "+
				"give --tls-cert and --tls-key, or, where something else protects the way, --insecure-no-tls", at)
		}
		if !f.insecureNoAuth && f.clientCA == "" && n.tokens.Usable() == 0 {
			return usagef("%s, but the store has no token with which they could call; run: scale token create NAME --scope read "+
				"(or give --client-ca, or --insecure-no-auth to let anybody read)", at)
		}
	}
	return nil
}

// ownHosts returns the host in an address that was given for HTTP, if requests can be for it.
func ownHosts(address string) []string {
	host, _, err := net.SplitHostPort(address)
	if ip, perr := netip.ParseAddr(host); err != nil || host == "" || perr == nil && ip.IsUnspecified() {
		return nil
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return []string{host}
}

// notify tells systemd, if that is what started the process.
func (n *node) notify(state string) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err == nil {
		_, err = c.Write([]byte(state))
		c.Close()
	}
	if err != nil {
		n.log.Warn("the service manager could not be told", "state", state, "err", err)
	}
}

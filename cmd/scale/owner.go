package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/koii-network/scale/anchor/agent"
	"github.com/koii-network/scale/compress"
	"github.com/koii-network/scale/grpcapi"
	"github.com/koii-network/scale/store"
)

// A store directory has one owner at a time. A process that owns it for a verb serves its
// private socket meanwhile, so that others of the same user need not wait: they are its
// guests. When it goes, one of them takes the store over, serves it in its turn, and all
// go on where they were.

// A place is a store directory that a verb works on.
type place struct {
	a       *app
	ctx     context.Context // of the verb, within which the place lives
	dir     string
	command string
	level   compress.Level
	// anchoring, if set, begins to make anchors, for a verb that needs them: this process
	// does so when it owns the store.
	anchoring func(*agent.Agent)
	// patience is how long to wait for the store when another process has it, for a verb
	// that has to own it.
	patience time.Duration

	mu     sync.Mutex
	joined bool   // as a guest: it is in the middle of its work
	heir   *owner // this process, once it has taken over as a guest
}

const (
	// guestPatience is how long a guest waits at least for an owner that is going: to give
	// up in the middle is worse than to wait.
	guestPatience = 10 * time.Second
	// answerTime is how long an owner has at least to say that it is there.
	answerTime = 5 * time.Second
	// quietClose is how long an owner that is done waits for its guests without a word.
	quietClose = time.Second
)

// open makes this process the owner of the store, or else the guest of the one that is.
// While that one is about to listen, or to go, it tries again until --wait-lock has passed.
func (p *place) open() (engine, error) {
	for deadline := time.Now().Add(p.a.waitLock); ; {
		o, locked := p.own()
		if locked == nil {
			return o, nil
		}
		if !errors.Is(locked, store.ErrBusy) {
			return nil, locked
		}
		c, err := p.join(locked, grpcapi.DialOptions{Level: p.level, TempDir: tempDir(), Revive: p.revive, FileCache: store.FileCache(fileCache())})
		if err == nil {
			p.mu.Lock()
			p.joined = true
			p.mu.Unlock()
			return &guest{Client: c, place: p}, nil
		}
		if err := p.later(err, locked, deadline); err != nil {
			return nil, errors.Join(err, p.close())
		}
	}
}

// join connects to the process that has locked the store.
func (p *place) join(locked error, o grpcapi.DialOptions) (*grpcapi.Client, error) {
	ctx, cancel := context.WithTimeoutCause(p.ctx, max(p.a.waitLock, answerTime), fmt.Errorf("%w, which does not answer", locked))
	defer cancel()
	o.UserAgent = p.command
	return grpcapi.Dial(ctx, "unix:"+p.dir, o)
}

// gone is for those who do not take a store over: they look again who has it.
func gone(context.Context, time.Time) error {
	return fmt.Errorf("%w: its owner is going", grpcapi.ErrNotServed)
}

// revive takes the store over when its owner has gone, unless another process does. While
// the owner is going, its guests wait.
func (p *place) revive(ctx context.Context, since time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	wait := p.a.waitLock
	if p.joined {
		wait = max(wait, guestPatience)
	}
	for p.heir == nil {
		o, locked := p.own()
		if locked == nil {
			p.heir = o
			break
		}
		if !errors.Is(locked, store.ErrBusy) {
			return locked
		}
		conn, err := grpcapi.DialPrivate(ctx, p.dir)
		if err == nil {
			conn.Close()
			if time.Since(since) > wait {
				return locked
			}
			return nil // it, or another that has taken over, is asked again
		}
		if err := p.later(err, locked, since.Add(wait)); err != nil {
			return err
		}
	}
	return nil
}

// later waits a little when nobody answers at the socket of a store that is locked, and
// returns an error when that has gone on for too long, or when it will not pass.
func (p *place) later(err, locked error, deadline time.Time) error {
	switch {
	case p.ctx.Err() != nil:
		return context.Cause(p.ctx)
	case !errors.Is(err, grpcapi.ErrNotServed):
		return err
	case !time.Now().Before(deadline):
		return locked
	}
	select {
	case <-p.ctx.Done():
	case <-time.After(ownerPoll):
	}
	return nil
}

// close gives up what this process has taken over.
func (p *place) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.heir == nil {
		return nil
	}
	return p.heir.Close()
}

// A guest works on a store by way of the process that owns it.
type guest struct {
	*grpcapi.Client
	place *place
}

func (g *guest) Close() error { return errors.Join(g.Client.Close(), g.place.close()) }

// An owner is a store that this process owns and serves.
type owner struct {
	*store.Store
	agent  *agent.Agent
	place  *place
	socket net.Listener // nil if there is none: others then wait
	server *grpcapi.Server
	tokens *grpcapi.TokenFile
	served chan error
}

// own opens the store and serves it to this user's other processes.
func (p *place) own() (*owner, error) {
	s, err := store.Open(p.ctx, p.dir, store.Options{
		WaitLock: p.patience, Level: p.level, Command: p.command, TempDir: tempDir(), FileCache: fileCache(), Seen: agent.SeenBy(p.dir),
	})
	if err != nil {
		return nil, err
	}
	o := &owner{Store: s, place: p, agent: agent.New(s, agent.Options{Logger: p.a.nodeLog()})}
	if p.anchoring != nil {
		p.anchoring(o.agent)
	}
	// Where there cannot be a socket, as on some network file systems, others wait.
	if o.socket, err = grpcapi.ListenPrivate(p.dir); err != nil {
		return o, nil
	}
	o.tokens = grpcapi.OpenTokens(p.dir)
	var auth grpcapi.Authenticator // lets in whoever comes through the socket, and nobody else
	o.server, err = grpcapi.NewServer(s, grpcapi.ServerOptions{
		Authenticate: auth.Authenticate, Credentials: grpcapi.Credentials(nil), Tokens: o.tokens, Anchors: o.agent, Version: buildVersion(),
	})
	if err != nil {
		return nil, errors.Join(err, o.Close())
	}
	o.served = make(chan error, 1)
	go func() { o.served <- o.server.Serve(o.socket) }()
	return o, nil
}

// Close lets the calls of guests finish, and refuses new ones meanwhile, unless the verb
// was interrupted. Then it closes the store.
func (o *owner) Close() error {
	var errs []error
	if o.server != nil {
		o.place.a.meter.clear()
		errs = append(errs, o.place.a.stdout.Flush()) // nobody should wait for what is done
		waiting := time.AfterFunc(quietClose, func() {
			fmt.Fprintln(o.place.a.stderr, "scale: done; waiting for other commands that use the store by way of this one")
		})
		if err := o.server.Shutdown(o.place.ctx); o.place.ctx.Err() == nil {
			errs = append(errs, err)
		}
		waiting.Stop()
		errs = append(errs, <-o.served)
	}
	if o.socket != nil {
		if err := o.socket.Close(); !errors.Is(err, net.ErrClosed) { // by the server
			errs = append(errs, err)
		}
		o.tokens.Close()
	}
	o.agent.Close()
	return errors.Join(append(errs, o.Store.Close())...)
}

// open opens the store, or the node, that a verb works on. The caller closes it.
func (a *app) open(cmd *cobra.Command, level compress.Level) (e engine, err error) {
	return a.openAs(cmd, level, nil)
}

// openAnchoring is open for a verb that needs anchors to be made meanwhile, in the way
// that anchoring begins.
func (a *app) openAnchoring(cmd *cobra.Command, anchoring func(*agent.Agent)) (engine, error) {
	return a.openAs(cmd, compress.Default, anchoring)
}

func (a *app) openAs(cmd *cobra.Command, level compress.Level, anchoring func(*agent.Agent)) (e engine, err error) {
	if a.remote() {
		e, err = a.dial(cmd, level)
	} else {
		var dir string
		if dir, err = a.existing(cmd.Context()); err == nil {
			p := &place{a: a, ctx: cmd.Context(), dir: dir, command: cmd.CommandPath(), level: level, anchoring: anchoring}
			e, err = p.open()
		}
	}
	if err != nil {
		return nil, err
	}
	if doubt := e.Doubt(); doubt != nil {
		a.note("scale: warning: the store reads but does not append: %v", doubt)
	}
	return e, nil
}

// closing closes the store at the end of a verb, and lets a failure of that be seen.
func closing(e engine, err *error) { *err = errors.Join(*err, e.Close()) }

package grpcapi

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
)

// An answerBudget bounds what the node holds for its callers to take: answers that are
// being made, and those that the transport has and its callers have not taken. Whoever
// makes a large answer reserves room before, and waits for it for a while; small answers
// are counted once they are encoded.
type answerBudget struct {
	limit int64
	wait  time.Duration

	mu      sync.Mutex
	out     int64                  // reserved, lent and owed; guarded by mu, as is all below
	owing   int64                  // of out: statuses that connections do not take
	by      map[string]int64       // of whom
	held    map[*limitedConn]int64 // for the caller at the other end of what
	waiting []*answerTurn          // in order
}

// An answerTurn is an answer that waits for room.
type answerTurn struct {
	a    *account
	n    int64
	mine chan struct{} // closed when it has it
}

func newAnswerBudget(l Limits) *answerBudget {
	return &answerBudget{
		limit: int64(l.SendBytes), wait: l.WriteWait,
		by: map[string]int64{}, held: map[*limitedConn]int64{},
	}
}

// smallAnswer is up to where an answer counts as small. A quarter of the room is for those,
// so that callers who take nothing of large answers do not keep others from small ones.
const smallAnswer = 64 << 10

// fits reports whether there is room. An answer larger than its share has it when there is
// no other.
func (b *answerBudget) fits(a *account, n int64) bool {
	all, one := b.limit, b.limit-b.limit/shareForOthers
	if n > smallAnswer {
		all -= b.limit / 4
		one -= b.limit / 4
	}
	return b.out+n <= all && b.by[a.who]+n <= one || b.out == 0
}

// take takes room, and waits for it if need be.
func (b *answerBudget) take(ctx context.Context, a *account, n int64) error {
	b.mu.Lock()
	if a.free || b.fits(a, n) {
		b.add(a, n)
		b.mu.Unlock()
		return nil
	}
	t := &answerTurn{a: a, n: n, mine: make(chan struct{})}
	b.waiting = append(b.waiting, t)
	b.mu.Unlock()

	timer := time.NewTimer(b.wait)
	defer timer.Stop()
	var err error
	select {
	case <-t.mine:
		return nil
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-timer.C:
		err = busy("the node holds as many answers as it may that their callers do not take, and none was taken within %v", b.wait)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if i := slices.Index(b.waiting, t); i >= 0 {
		b.waiting = slices.Delete(b.waiting, i, i+1)
	} else { // its turn has come meanwhile
		b.add(a, -n)
		b.next()
	}
	return err
}

// force takes room, be there any or not.
func (b *answerBudget) force(a *account, n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.add(a, n)
}

// give gives room back, and to the first that may have it.
func (b *answerBudget) give(a *account, n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.add(a, -n)
	b.next()
}

// next lets those go that there is room for. Who holds least goes first: a caller who takes
// his answers does not stand behind all that another one asks for.
func (b *answerBudget) next() {
	if len(b.waiting) == 0 {
		return
	}
	slices.SortStableFunc(b.waiting, func(x, y *answerTurn) int { return cmp.Compare(b.held[x.a.conn], b.held[y.a.conn]) })
	b.waiting = slices.DeleteFunc(b.waiting, func(t *answerTurn) bool {
		if !b.fits(t.a, t.n) {
			return false
		}
		b.add(t.a, t.n)
		close(t.mine)
		return true
	})
}

func (b *answerBudget) add(a *account, n int64) {
	b.out += n
	if b.by[a.who] += n; b.by[a.who] == 0 {
		delete(b.by, a.who)
	}
	b.hold(a.conn, n)
}

// owed counts n bytes for a connection that no account counts.
func (b *answerBudget) owed(c *limitedConn, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.out += int64(n)
	b.owing += int64(n)
	b.hold(c, int64(n))
	b.next()
}

// keep counts n bytes for a connection that others need not wait for.
func (b *answerBudget) keep(c *limitedConn, n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.hold(c, n)
}

func (b *answerBudget) hold(c *limitedConn, n int64) {
	if c == nil {
		return
	}
	if b.held[c] += n; b.held[c] == 0 {
		delete(b.held, c)
	}
}

// wanted returns how much room is waited for, or missing.
func (b *answerBudget) wanted() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := max(0, b.owing-b.limit/4)
	for _, t := range b.waiting {
		n += t.n
	}
	return n
}

// full reports whether so many statuses are not taken that no more calls should come.
func (b *answerBudget) full() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.owing > b.limit/4
}

// An account is what the answer of one call, or of one HTTP request, has of the budget: what
// is reserved while it is made, or what is lent to the transport, whichever is more. It
// outlives the call until the transport has sent the answer.
type account struct {
	b    *answerBudget
	who  string
	conn *limitedConn // nil if there is none to be closed
	// free callers do not wait: those of the private socket.
	free bool
	// web is set for an HTTP request. The messages of its call do not stay in the transport;
	// JSON is made of them, and they count until that has been taken.
	web  bool
	cert *peerCert // of an HTTP request's connection, or nil

	mu      sync.Mutex
	base    int64 // reserved; guarded by mu, as is all below
	lent    int64
	charged int64 // what the budget has been told
	kept    int64 // of what there is one at a time
	over    bool  // nothing is reserved any more
}

const (
	// answerSlack is what the transport holds for an answer besides its bytes.
	answerSlack = 4 << 10
	// Of a message in protobuf, as JSON and on the way there, there is so many times its
	// length; of the room for making it, so many times.
	jsonMessage = 4
	jsonRoom    = 2
)

// reserve has room for n bytes before an answer is made. It keeps them until release; a
// second time it adds what is missing.
func (a *account) reserve(ctx context.Context, n int) error {
	if a == nil {
		return nil
	}
	if a.web {
		n *= jsonRoom
	}
	return a.atLeast(ctx, int64(n))
}

func (a *account) atLeast(ctx context.Context, n int64) error {
	a.mu.Lock()
	more := n - a.charged
	a.mu.Unlock()
	if more > 0 {
		if err := a.b.take(ctx, a, more); err != nil {
			return err
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.charged += max(more, 0)
	if !a.over {
		a.base = max(a.base, n)
	}
	a.settle()
	return nil
}

// keep counts n bytes for the connection alone: of something that there is one of at a time
// in the node, and that others who want room need not wait for.
func (a *account) keep(n int) {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.over {
		a.kept += int64(n)
		a.b.keep(a.conn, int64(n))
	}
}

// admit waits until there is room for a message of n bytes that is to be lent.
func (a *account) admit(ctx context.Context, n int) error {
	if a.web {
		return a.atLeast(ctx, int64(n)*jsonMessage)
	}
	a.mu.Lock()
	more := max(a.base, a.lent+int64(n)) - a.charged
	a.mu.Unlock()
	if more <= 0 {
		return nil
	}
	if err := a.b.take(ctx, a, more); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.charged += more
	return nil
}

// count implements counter.
func (a *account) count(n int64) {
	if n > 0 {
		n += answerSlack
	} else {
		n -= answerSlack
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lent += n
	a.settle()
}

// release gives back what was reserved. What is lent stays. Of an HTTP request it is for
// the port to say when its answer has been taken.
func (a *account) release() {
	if a != nil && !a.web {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.drop()
	}
}

func (a *account) drop() {
	a.b.keep(a.conn, -a.kept)
	a.base, a.kept = 0, 0
	a.settle()
}

// end gives back what was reserved, for good: the call of an HTTP request may go on for a
// moment after it.
func (a *account) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.over = true
	a.drop()
}

// settle tells the budget what there is.
func (a *account) settle() {
	switch n := max(a.base, a.lent) - a.charged; {
	case n > 0:
		a.charged += n
		a.b.force(a, n)
	case n < 0:
		a.charged += n
		a.b.give(a, -n)
	}
}

// answers are the buffers of messages that are sent. The smallest ones are those that the
// transport still gives back.
var answers = newBufferPool(2<<10, 16<<10, pieceSize, 512<<10)

// send returns the first n bytes of a buffer of answers as one that is lent to a until it has
// been sent.
func (a *account) send(b *lentBuffer, n int) mem.Buffer {
	b.buf = b.all[:n]
	if a != nil && !a.web {
		b.out.lend(a)
	}
	return mem.NewBuffer(&b.buf, sentTo{})
}

// sentTo is where the transport gives buffers back to.
type sentTo struct{}

func (sentTo) Get(n int) *[]byte {
	b := answers.take(n)
	b.buf = b.all[:n]
	return &b.buf
}

func (sentTo) Put(b *[]byte) { answers.Put(b) }

type accountKey struct{}

// accountOf returns the account of a call, or nil.
func accountOf(ctx context.Context) *account {
	a, _ := ctx.Value(accountKey{}).(*account)
	return a
}

// reserve has room for an answer of a call that is about to be made; see account.
func (s *Server) reserve(ctx context.Context, n int) error {
	if err := accountOf(ctx).reserve(ctx, n); err != nil {
		return fmt.Errorf("an answer of up to %d bytes: %w", n, err)
	}
	return nil
}

type connKey struct{}

// openWebAccount makes the account of an HTTP request's answer, which the call that comes of
// it finds by a number. end must be called when the answer has been taken.
func (s *Server) openWebAccount(r *http.Request, cert *peerCert) (number uint64, end func()) {
	conn, _ := r.Context().Value(connKey{}).(*limitedConn)
	a := &account{b: s.answers, who: "http " + hostOf(r.RemoteAddr), conn: conn, web: true, cert: cert}
	number = s.webs.Add(1)
	s.web.Store(number, a)
	return number, func() {
		s.web.Delete(number)
		a.end()
	}
}

// webAccount returns the account of the HTTP request that a call comes of, or nil.
func (s *Server) webAccount(ctx context.Context) *account {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil
	}
	if info, ok := p.AuthInfo.(routeInfo); !ok || info.route != routeGateway {
		return nil
	}
	md, _ := metadata.FromIncomingContext(ctx)
	c, err := gatewayCaller(md)
	if err != nil {
		return nil
	}
	a, _ := s.web.Load(c.account)
	w, _ := a.(*account)
	return w
}

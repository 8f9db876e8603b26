package arweave

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/everFinance/goar/types"

	"github.com/koii-network/scale/anchor"
	"github.com/koii-network/scale/anchor/endpoint"
)

// An upload is how far the chunks of one transaction have come at each endpoint, so that
// the next Send goes on there, and which of them have taken all. Without it all are sent
// again.
type upload struct {
	id   string
	next map[*endpoint.Endpoint]int
	took map[*endpoint.Endpoint]bool
}

// of makes the upload that of a transaction. It is called with mu held.
func (u *upload) of(id string) {
	if u.id != id {
		*u = upload{id, map[*endpoint.Endpoint]int{}, map[*endpoint.Endpoint]bool{}}
	}
}

// done returns and sets the number of chunks that an endpoint has taken.
func (c *Chain) done(e *endpoint.Endpoint, id string, set int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.progress.of(id)
	if set >= 0 {
		c.progress.next[e] = set
	}
	return c.progress.next[e]
}

// took reports whether an endpoint has taken a transaction whole, as all have not yet.
func (c *Chain) took(e *endpoint.Endpoint, id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.progress.of(id)
	return c.progress.took[e]
}

func (c *Chain) taken(e *endpoint.Endpoint, id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.progress.of(id)
	c.progress.took[e] = true
	if len(c.progress.took) == c.cfg.Endpoints.Len() {
		clear(c.progress.took)
	}
}

// Send implements anchor.Chain. The transaction goes first, since nodes take no chunks
// of one they don't know; a body of one chunk goes with it. The first endpoint that
// takes everything is enough: nodes tell each other. If it is sent again, it goes to
// another one: there are those who take all and keep it to themselves.
func (c *Chain) Send(ctx context.Context, tx anchor.Tx, body []byte) error {
	h, err := open(tx.Raw)
	if err != nil {
		return err
	}
	root, pieces, err := cut(body)
	if err != nil {
		return err
	}
	if h.ID != tx.ID || h.DataSize != int64(len(body)) || [32]byte(h.DataRoot) != root {
		return fmt.Errorf("arweave: transaction %s is not of this body, %d bytes with the root %x", tx.ID, len(body), root)
	}
	last := func(e *endpoint.Endpoint) bool { return c.took(e, tx.ID) }
	return c.cfg.Endpoints.LongLast(ctx, last, func(ctx context.Context, e *endpoint.Endpoint) (err error) {
		defer func() {
			if err == nil {
				c.taken(e, tx.ID)
			}
		}()
		at, err := locate(ctx, e, tx.ID, c.cfg.Network)
		if err != nil {
			return err
		}
		if !at.known {
			c.done(e, tx.ID, 0)
			whole, err := c.post(ctx, e, tx.Raw, body, len(pieces))
			if errors.Is(err, errNoSuch) {
				if now, statusErr := status(ctx, e, tx.ID); statusErr == nil && now.known {
					whole, err = false, nil
				}
			}
			if err != nil || whole {
				return err
			}
		}
		return c.upload(ctx, e, h, body, pieces)
	})
}

// errNoSuch is 404 to a transaction: what arlocal says where it has it already, wholly
// or in part.
var errNoSuch = errors.New("not found")

// post sends the transaction itself, and tells whether the body went with it. Only an
// answer that leaves no doubt is a refusal.
func (c *Chain) post(ctx context.Context, e *endpoint.Endpoint, raw, body []byte, chunks int) (whole bool, err error) {
	if whole = chunks == 1; whole {
		var tx types.Transaction
		if err := json.Unmarshal(raw, &tx); err != nil {
			return false, err
		}
		tx.Data = encode(body)
		if raw, err = json.Marshal(tx); err != nil {
			return false, err
		}
	}
	r, err := call(ctx, e, http.MethodPost, "/tx", raw)
	switch {
	case err != nil:
		return false, err
	case r.code == http.StatusAlreadyReported: // which says nothing about its body
		return false, nil
	case r.ok():
		return whole, nil
	case r.code == http.StatusGone:
		return false, fmt.Errorf("POST /tx: %s: %w", r.words(), anchor.ErrFunds)
	case r.code == http.StatusBadRequest, r.code == http.StatusForbidden, r.code == http.StatusRequestEntityTooLarge:
		return false, fmt.Errorf("POST /tx: %s: %w", r.words(), anchor.ErrRefused)
	case r.code == http.StatusNotFound:
		return false, fmt.Errorf("%w: %w", errNoSuch, r.unusable("POST /tx"))
	}
	return false, r.unusable("POST /tx")
}

// upload sends the chunks in order, from the first that the endpoint has not taken. Its
// errors are never refusals: the transaction itself is out there.
func (c *Chain) upload(ctx context.Context, e *endpoint.Endpoint, h Header, body []byte, pieces []piece) error {
	for i := c.done(e, h.ID, -1); i < len(pieces); i++ {
		p := pieces[i]
		b, err := json.Marshal(types.GetChunk{
			DataRoot: encode(h.DataRoot), DataSize: strconv.Itoa(len(body)), DataPath: encode(p.path),
			Offset: strconv.Itoa(p.end - 1), Chunk: encode(body[p.start:p.end]),
		})
		if err != nil {
			return err
		}
		r, err := call(ctx, e, http.MethodPost, "/chunk", b)
		if err == nil && !r.ok() {
			err = r.unusable("POST /chunk")
		}
		if err != nil {
			return fmt.Errorf("chunk %d of %d: %w", i+1, len(pieces), err)
		}
		c.done(e, h.ID, i+1)
	}
	c.done(e, h.ID, 0) // should it be asked for again, nothing is taken for granted
	return nil
}

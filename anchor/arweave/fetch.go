package arweave

import (
	"bytes"
	"cmp"
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

// Fetch returns an extension's header and body, of at most most bytes, from whichever
// endpoint has them. Both are verified as far as the transaction's id goes; who signed
// the checkpoint is for the caller. The pool's Options.Answer need not have room for a
// body. That an endpoint answered and does not have it is told apart in the error's words
// only: both are anchor.ErrUnavailable.
func Fetch(ctx context.Context, p *endpoint.Pool, id string, most int64) (Header, []byte, error) {
	h, err := FetchHeader(ctx, p, id)
	if err != nil {
		return Header{}, nil, err
	}
	if h.DataSize > most {
		return Header{}, nil, fmt.Errorf("transaction %s has a body of %d bytes, at most %d are read: %w", id, h.DataSize, most, anchor.ErrForged)
	}
	body, err := readBody(ctx, p, h)
	return h, body, err
}

// FetchHeader returns an extension's header, verified. That no endpoint knows it, or only
// as one that waits for a block, is an error that wraps anchor.ErrNotFinal.
func FetchHeader(ctx context.Context, p *endpoint.Pool, id string) (h Header, err error) {
	if !isID(id) {
		return h, fmt.Errorf("%q is not the id of an Arweave transaction", id)
	}
	without := 0
	err = p.First(ctx, func(ctx context.Context, e *endpoint.Endpoint) error {
		r, err := get(ctx, e, "/tx/"+id)
		switch {
		case err != nil:
			return err
		case r.code == http.StatusNotFound:
			without++
			return fmt.Errorf("does not know transaction %s: %w", id, anchor.ErrUnavailable)
		case r.code == http.StatusAccepted:
			without++
			return fmt.Errorf("transaction %s waits for a block: %w", id, anchor.ErrUnavailable)
		case r.code != http.StatusOK:
			return r.unusable("/tx/" + id)
		}
		raw, err := normal(r.body)
		if err != nil {
			return err
		}
		if h, err = open(raw); err == nil && h.ID != id {
			err = fmt.Errorf("answered with transaction %s: %w", h.ID, anchor.ErrUnavailable)
		}
		return err
	})
	if err != nil && without == p.Len() {
		err = fmt.Errorf("%w: %w", anchor.ErrNotFinal, err)
	}
	return h, err
}

// normal brings what an endpoint says of a transaction into the one form of a header.
// What it changes that the signature covers, the signature shows.
func normal(b []byte) ([]byte, error) {
	var tx struct {
		types.Transaction
		Data     json.RawMessage `json:"data"`
		DataTree json.RawMessage `json:"data_tree"`
		Format   json.Number     `json:"format"`
		DataSize json.Number     `json:"data_size"`
		Quantity json.Number     `json:"quantity"`
		Reward   json.Number     `json:"reward"`
	}
	if err := json.Unmarshal(b, &tx); err != nil {
		return nil, fmt.Errorf("not a transaction: %w: %w", anchor.ErrUnavailable, err)
	}
	t := tx.Transaction
	t.Format, _ = strconv.Atoi(tx.Format.String()) // what is no number is no format
	t.DataSize, t.Quantity, t.Reward = cmp.Or(tx.DataSize.String(), "0"), cmp.Or(tx.Quantity.String(), "0"), cmp.Or(tx.Reward.String(), "0")
	return format(t)
}

// errNotReadable: an endpoint that answered does not have the body.
var errNotReadable = errors.New("its body cannot be read back")

// readBody reads a body and checks it against its data root.
func readBody(ctx context.Context, p *endpoint.Pool, h Header) (body []byte, err error) {
	has := func(b []byte) bool {
		if int64(len(b)) != h.DataSize {
			return false
		}
		root := DataRoot(b)
		return bytes.Equal(root[:], h.DataRoot)
	}
	lacks := false
	err = p.Long(ctx, func(ctx context.Context, e *endpoint.Endpoint) error {
		var errs []error
		for _, read := range []func(context.Context, *endpoint.Endpoint, Header) ([]byte, error){readWhole, readRaw, readChunks} {
			b, err := read(ctx, e, h)
			if err == nil && has(b) {
				body = b
				return nil
			}
			if err == nil {
				err = fmt.Errorf("%d bytes that are not of %s: %w", len(b), h.ID, errNotReadable)
			}
			errs = append(errs, err)
			lacks = lacks || errors.Is(err, errNotReadable)
		}
		return errors.Join(errs...)
	})
	switch {
	case err == nil:
		return body, nil
	case lacks:
		return nil, fmt.Errorf("body of transaction %s: %w: %w", h.ID, errNotReadable, err)
	}
	return nil, fmt.Errorf("body of transaction %s: %w", h.ID, err)
}

// readWhole asks as a gateway and a node serve data, readRaw as a gateway does that
// answers the other way with a redirection.
func readWhole(ctx context.Context, e *endpoint.Endpoint, h Header) ([]byte, error) {
	return data(ctx, e, "/"+h.ID, h.DataSize)
}

func readRaw(ctx context.Context, e *endpoint.Endpoint, h Header) ([]byte, error) {
	return data(ctx, e, "/raw/"+h.ID, h.DataSize)
}

func data(ctx context.Context, e *endpoint.Endpoint, path string, size int64) ([]byte, error) {
	r, err := get(endpoint.WithAnswer(ctx, size), e, path)
	if err == nil && r.code != http.StatusOK {
		err = fmt.Errorf("%s: %s: %w", path, r.words(), errNotReadable)
	}
	return r.body, err
}

// readChunks reads a body as nodes keep it.
func readChunks(ctx context.Context, e *endpoint.Endpoint, h Header) ([]byte, error) {
	path := "/tx/" + h.ID + "/offset"
	r, err := get(ctx, e, path)
	switch {
	case err != nil:
		return nil, err
	case r.code != http.StatusOK:
		return nil, fmt.Errorf("%s: %s: %w", path, r.words(), errNotReadable)
	}
	var place struct {
		Offset string `json:"offset"` // of the last byte in all that the network keeps
		Size   string `json:"size"`
	}
	if err := json.Unmarshal(r.body, &place); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", path, errNotReadable, err)
	}
	end, err := strconv.ParseInt(place.Offset, 10, 64)
	if err != nil || place.Size != strconv.FormatInt(h.DataSize, 10) || end < h.DataSize-1 {
		return nil, fmt.Errorf("%s: %s: %w", path, r.words(), errNotReadable)
	}
	var body []byte
	for start := end - h.DataSize + 1; int64(len(body)) < h.DataSize; {
		path := "/chunk/" + strconv.FormatInt(start+int64(len(body)), 10)
		r, err := get(ctx, e, path)
		switch {
		case err != nil:
			return nil, err
		case r.code != http.StatusOK:
			return nil, fmt.Errorf("%s: %s: %w", path, r.words(), errNotReadable)
		}
		var c types.TransactionChunk
		if err := json.Unmarshal(r.body, &c); err != nil {
			return nil, fmt.Errorf("%s: %w: %w", path, errNotReadable, err)
		}
		b, err := decode(c.Chunk)
		if err != nil || len(b) == 0 || len(b) > types.MAX_CHUNK_SIZE || int64(len(body)+len(b)) > h.DataSize {
			return nil, fmt.Errorf("%s: %d bytes: %w", path, len(b), errNotReadable)
		}
		body = append(body, b...)
	}
	return body, nil
}

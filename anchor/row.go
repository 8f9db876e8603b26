package anchor

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// A State is where a checkpoint stands on its way to a chain.
type State uint8

// States, in the order of a smooth way. Their names are part of the row's format.
const (
	// Pending: to be signed. No transaction exists.
	Pending State = iota + 1
	// Signed: a transaction is stored that nobody has been given.
	Signed
	// Sent: the transaction may be out there. Written before the first sending.
	Sent
	// Seen: it is in a block that can still be dropped.
	Seen
	// Final: it is settled; the receipt is complete.
	Final
	// Expired: it entered no block and none can take it any more.
	Expired
	// Refused: it was refused before it had an effect, or failed in its block.
	Refused
)

var stateNames = []string{"", "pending", "signed", "sent", "seen", "final", "expired", "refused"}

func (s State) String() string {
	if int(s) < len(stateNames) && s > 0 {
		return stateNames[s]
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// ParseState is the inverse of State.String.
func ParseState(name string) (State, error) {
	if i := slices.Index(stateNames, name); i > 0 {
		return State(i), nil
	}
	return 0, fmt.Errorf("no state %q", name)
}

// MarshalText returns the state's name.
func (s State) MarshalText() ([]byte, error) {
	if s < Pending || s > Refused {
		return nil, fmt.Errorf("no state %d", uint8(s))
	}
	return []byte(s.String()), nil
}

// UnmarshalText reads a state's name.
func (s *State) UnmarshalText(b []byte) (err error) {
	*s, err = ParseState(string(b))
	return err
}

// Open reports whether the worker still has to do with a row in this state.
func (s State) Open() bool { return s >= Pending && s <= Seen }

// A Transition is one step of a row, for people.
type Transition struct {
	Time    time.Time `json:"time"` // as the clock here said
	State   State     `json:"state"`
	Attempt int       `json:"attempt"`
	Text    string    `json:"text,omitempty"`
}

// A Link names the extension that another one follows.
type Link struct {
	ID   string `json:"id"`
	Size int64  `json:"size"`
	Root []byte `json:"root"`
}

// A Row is what the outbox knows of one checkpoint on one chain.
type Row struct {
	Chain      string
	Size       int64
	Checkpoint []byte // the signed note
	State      State
	// Attempt counts the transactions that were signed; it is that of Tx.
	Attempt int
	Tx      Tx
	// Base is the extension that this one follows, if the chain keeps extensions; its
	// zero value is the start of the log. Only what was final is ever a base.
	Base Link
	// Body tells how long the body is that belongs to Tx, 0 for none.
	Body int64
	// Receipt is set from Seen on; its Raw is that of Tx.
	Receipt *Receipt
	// History is the newest transitions, oldest first, at most maxHistory.
	History []Transition
}

const (
	maxHistory = 32
	maxText    = 300 // bytes of a transition's text
	maxRow     = 64 << 10
)

// ErrRow is a row of the outbox that cannot be read.
var ErrRow = errors.New("damaged outbox row")

// Reached reports whether the row's checkpoint has got to a state on the smooth way.
func (r *Row) Reached(s State) bool { return r.State <= Final && r.State >= s }

// Updated returns the time of the newest transition.
func (r *Row) Updated() time.Time {
	if len(r.History) == 0 {
		return time.Time{}
	}
	return r.History[len(r.History)-1].Time
}

// Created returns when the row's present attempt began, as far as the history goes back.
func (r *Row) Created() time.Time {
	var t time.Time
	for _, h := range r.History {
		if t.IsZero() || h.State == Pending {
			t = h.Time
		}
	}
	return t
}

// Text returns the words of the newest transition.
func (r *Row) Text() string {
	if len(r.History) == 0 {
		return ""
	}
	return r.History[len(r.History)-1].Text
}

// become moves the row to a state. Repeating the state with other words replaces them,
// so that a retry does not push the history out.
func (r *Row) become(s State, now time.Time, text string) {
	t := Transition{Time: now.UTC().Truncate(time.Millisecond), State: s, Attempt: r.Attempt, Text: clip(text)}
	if n := len(r.History); n > 1 && r.State == s && r.History[n-1].State == s && r.History[n-2].State == s && r.History[n-1].Attempt == r.Attempt {
		r.History[n-1] = t
	} else {
		r.History = append(r.History, t)
	}
	if len(r.History) > maxHistory {
		r.History = slices.Delete(r.History, 1, 1+len(r.History)-maxHistory)
	}
	r.State = s
}

// rowJSON is the row's form in the store, version 1: see SPEC.md.
type rowJSON struct {
	Version    int          `json:"version"`
	Chain      string       `json:"chain"`
	Size       int64        `json:"size"`
	Checkpoint string       `json:"checkpoint"`
	State      State        `json:"state"`
	Attempt    int          `json:"attempt"`
	TxID       string       `json:"tx_id,omitempty"`
	Raw        []byte       `json:"raw,omitempty"`
	Expires    uint64       `json:"expires,omitempty"`
	Fee        uint64       `json:"fee,omitempty"`
	Base       *Link        `json:"base,omitempty"`
	Body       int64        `json:"body,omitempty"`
	Receipt    *receiptJSON `json:"receipt,omitempty"`
	History    []Transition `json:"history"`
}

type receiptJSON struct {
	Network string `json:"network"`
	Height  uint64 `json:"height"`
	Block   string `json:"block"`
	Time    int64  `json:"time"`
	Depth   uint64 `json:"depth"`
	Final   bool   `json:"final"`
}

// Encode returns the row as it is stored.
func (r *Row) Encode() ([]byte, error) {
	j := rowJSON{
		Version: 1, Chain: r.Chain, Size: r.Size, Checkpoint: string(r.Checkpoint), State: r.State, Attempt: r.Attempt,
		TxID: r.Tx.ID, Raw: r.Tx.Raw, Expires: r.Tx.Expires, Fee: r.Tx.Fee, Body: r.Body, History: r.History,
	}
	if r.Base.ID != "" {
		j.Base = &r.Base
	}
	if c := r.Receipt; c != nil {
		j.Receipt = &receiptJSON{Network: c.Network, Height: c.Height, Block: c.Block, Time: c.Time, Depth: c.Depth, Final: c.Final}
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false) // a history of error pages is not to grow sixfold
	err := e.Encode(j)
	b := bytes.TrimSuffix(out.Bytes(), []byte{'\n'})
	if err == nil && len(b) > maxRow {
		err = fmt.Errorf("row of %d bytes, at most %d", len(b), maxRow)
	}
	return b, err
}

// DecodeRow reads what Encode returned.
func DecodeRow(b []byte) (*Row, error) {
	if len(b) > maxRow {
		return nil, fmt.Errorf("%d bytes: %w", len(b), ErrRow)
	}
	var j rowJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRow, err)
	}
	if j.Version != 1 {
		return nil, fmt.Errorf("version %d, this program knows 1: %w", j.Version, ErrRow)
	}
	r := &Row{
		Chain: j.Chain, Size: j.Size, Checkpoint: []byte(j.Checkpoint), State: j.State, Attempt: j.Attempt,
		Tx: Tx{ID: j.TxID, Raw: j.Raw, Expires: j.Expires, Fee: j.Fee}, Body: j.Body, History: j.History,
	}
	if j.Base != nil {
		r.Base = *j.Base
	}
	if c := j.Receipt; c != nil {
		r.Receipt = &Receipt{Chain: j.Chain, Raw: j.Raw, Network: c.Network, Height: c.Height, Block: c.Block, Time: c.Time, Depth: c.Depth, Final: c.Final}
	}
	switch {
	case r.Chain == "" || r.Size < 1 || len(r.Checkpoint) == 0 || r.Attempt < 0 || len(r.History) > maxHistory:
		return nil, fmt.Errorf("incomplete: %w", ErrRow)
	case r.State >= Signed && r.State <= Final && (r.Tx.ID == "" || len(r.Tx.Raw) == 0):
		return nil, fmt.Errorf("%s without a transaction: %w", r.State, ErrRow)
	case (r.State == Seen || r.State == Final) && r.Receipt == nil:
		return nil, fmt.Errorf("%s without a receipt: %w", r.State, ErrRow)
	}
	return r, nil
}

package anchor

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// The three outcomes of a call to a chain are: done (nil), refused, unknown. An error
// that wraps ErrRefused says that the call had no effect and never will; an error that
// wraps neither ErrRefused nor one of the others is "unknown": it may have had its effect.
var (
	// ErrRefused: the chain, or all endpoints that were asked, said no. What was refused
	// had no effect.
	ErrRefused = errors.New("refused")
	// ErrFunds: the wallet cannot pay. Wraps as ErrRefused too.
	ErrFunds = fmt.Errorf("not enough funds: %w", ErrRefused)
	// ErrFee: the price is above the cap that was configured. Wraps as ErrRefused too.
	ErrFee = fmt.Errorf("above the fee cap: %w", ErrRefused)
	// ErrCluster: an endpoint belongs to another network than the one that was configured.
	ErrCluster = fmt.Errorf("wrong network: %w", ErrRefused)
	// ErrUnavailable: no endpoint gave an answer that can be used.
	ErrUnavailable = errors.New("chain unavailable")
	// ErrDisagree: endpoints contradict each other where they have to agree.
	ErrDisagree = fmt.Errorf("endpoints disagree: %w", ErrUnavailable)
)

// A RetryError wraps an error of an endpoint that said when to come back.
type RetryError struct {
	After time.Duration
	Err   error
}

func (e *RetryError) Error() string { return fmt.Sprintf("%v (retry after %v)", e.Err, e.After) }
func (e *RetryError) Unwrap() error { return e.Err }

// A Job is what is to be anchored: the newest checkpoint, and for a chain that keeps
// extensions what it takes to build one.
type Job struct {
	// Checkpoint is the signed note with the log's own signature line only.
	Checkpoint []byte
	Origin     string
	Size       int64
	// Body is the encoded extension, nil for chains that hold checkpoints only.
	Body []byte
}

// A Tx is a transaction that is signed, and so has its name, before anyone has seen it.
type Tx struct {
	// ID is the chain's name for the transaction in its usual text form.
	ID string
	// Raw is the transaction exactly as it is to be sent. A body is not part of it.
	Raw []byte
	// Expires is the last block height at which the transaction can enter the chain.
	Expires uint64
	// Fee is what it costs, in the chain's smallest unit.
	Fee uint64
}

// A Phase is what a chain says about a transaction.
type Phase uint8

// Phases.
const (
	// Absent: nobody that was asked knows the transaction, but it can still land.
	Absent Phase = iota
	// Waiting: it was taken, and is in no block yet.
	Waiting
	// Included: it is in a block that can still be dropped.
	Included
	// Settled: it is as final as was asked for; Status.Receipt is complete.
	Settled
	// Failed: it is in a block for good, but had no effect (and was paid).
	Failed
	// Dead: it is in no block, and none can take it any more.
	Dead
)

// A Status is what the chain says about a transaction, and in words for people.
type Status struct {
	Phase   Phase
	Detail  string  // for people: "slot 12, 3 of 32 confirmations"
	Dissent string  // likewise: which endpoints say otherwise, and what
	Receipt Receipt // from Included on
	// Missing: the chain has the transaction, but not the body: it is to be sent again.
	Missing bool
}

// words are Detail and Dissent in one.
func (s *Status) words() string {
	if s.Dissent == "" {
		return s.Detail
	}
	return s.Detail + "; " + s.Dissent
}

// A Receipt is the evidence that a checkpoint was on a chain. Raw proves itself
// offline: signatures, and that the checkpoint is in it. All else is what endpoints
// claimed; verifying online asks others.
type Receipt struct {
	Chain string
	// Raw is the signed transaction.
	Raw []byte
	// Network names the chain itself: the genesis hash on K2, the network name on Arweave.
	Network string
	// Height is the slot on K2, the block's height on Arweave.
	Height uint64
	// Block is the block's hash in the chain's usual text form.
	Block string
	// Time is the block's time in seconds since 1970, 0 where the chain did not say.
	Time int64
	// Depth is how many blocks were on top when it was seen; Final says that the chain's
	// own rule, or the number that was configured, was met.
	Depth uint64
	Final bool
}

// A Balance is what a wallet holds.
type Balance struct {
	Address string
	Units   uint64 // smallest units
	// Price of one more anchor of the present size, as far as known.
	Price uint64
	Unit  string // "ROE", "winston"
	// Decimals from Unit to Coin.
	Decimals int
	Coin     string // "KOII", "AR"
}

// Anchors returns how many more the wallet pays for, -1 if the price is not known.
func (b Balance) Anchors() int64 {
	if b.Price == 0 {
		return -1
	}
	return int64(min(b.Units/b.Price, 1<<62))
}

// A Chain is an adapter. Its methods end when ctx does, may be called concurrently, and
// hold no state that outlives the process: that is in the outbox.
type Chain interface {
	// Name is that of rows, receipts and commands: "k2", "arweave".
	Name() string
	// Extends tells whether the chain keeps extensions: Job.Body is wanted.
	Extends() bool
	// Prepare prices and signs a transaction. Nothing is sent.
	Prepare(ctx context.Context, j Job) (Tx, error)
	// Send hands over a signed transaction and its body; doing so again is harmless. A nil
	// error says that an endpoint took it, ErrRefused that none did and none acted on it.
	Send(ctx context.Context, tx Tx, body []byte) error
	// Status looks a transaction up. It reports Settled, Failed and Dead only where endpoints agree, by
	// the rule of Agreed; an error says nothing about the transaction.
	Status(ctx context.Context, tx Tx) (Status, error)
	// Balance of the wallet.
	Balance(ctx context.Context) (Balance, error)
}

// A Verifier checks receipts of one chain.
type Verifier interface {
	Name() string
	// Open checks a receipt offline as far as bytes go.
	Open(r Receipt) (Anchored, error)
}

// Anchored is what a receipt's transaction itself proves.
type Anchored struct {
	ID         string
	Checkpoint []byte // signed note, not verified
	Signer     string // address or key of the one who anchored
	// Extension is the root that the transaction has of its body, nil on K2.
	DataRoot []byte
	DataSize int64
}

// An Observer confirms receipts online, from endpoints that the verifier of a proof names.
type Observer interface {
	Verifier
	// Confirm asks all endpoints. An error that wraps ErrUnavailable: no verdict; one that
	// wraps ErrNotFinal: it is there, but not final yet; one that wraps ErrForged: the chain has
	// no such transaction, or another one.
	Confirm(ctx context.Context, r Receipt) (Confirmed, error)
}

// Confirmed is what a chain said when it was asked.
type Confirmed struct {
	Height uint64
	Block  string
	Time   time.Time
	Depth  uint64
	Final  bool
	Asked  int // endpoints that answered, all alike
}

// Errors of verification.
var (
	// ErrForged: a receipt does not hold: its bytes, or what the chain says of it.
	ErrForged = errors.New("receipt does not hold")
	// ErrNotFinal: the anchor can still be dropped.
	ErrNotFinal = errors.New("not final yet")
)

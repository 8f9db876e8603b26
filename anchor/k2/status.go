package k2

import (
	"context"
	"errors"
	"fmt"

	"github.com/gagliardetto/solana-go"
	"github.com/gagliardetto/solana-go/rpc"

	"github.com/koii-network/scale/anchor"
	"github.com/koii-network/scale/anchor/endpoint"
)

// said is what one endpoint said of a transaction.
type said struct {
	who    string // the endpoint
	ok     bool   // it answered
	found  bool   // and knows the transaction
	past   bool   // it does not, and the transaction cannot land any more
	now    uint64 // the newest slot it knew then
	slot   uint64
	depth  uint64
	level  rpc.ConfirmationStatusType
	failed string // why the transaction failed, if it did
}

// ask asks one endpoint what it knows of a transaction.
func ask(ctx context.Context, c *rpc.Client, sig solana.Signature) (said, error) {
	type status struct {
		Slot          uint64                     `json:"slot"`
		Confirmations *uint64                    `json:"confirmations"`
		Err           any                        `json:"err"`
		Level         rpc.ConfirmationStatusType `json:"confirmationStatus"`
	}
	r, err := call[inContext[[]*status]](ctx, c, "getSignatureStatuses", []string{sig.String()}, map[string]bool{"searchTransactionHistory": true})
	if err != nil {
		return said{}, err
	}
	if r.Value == nil || len(*r.Value) != 1 {
		return said{}, fmt.Errorf("no status in the answer: %w", anchor.ErrUnavailable)
	}
	s := said{ok: true, now: r.Context.Slot}
	if v := (*r.Value)[0]; v != nil {
		s.found, s.slot, s.level = true, v.Slot, v.Level
		if v.Err != nil {
			s.failed = clip(fmt.Sprint(v.Err))
		}
		if v.Confirmations != nil {
			s.depth = *v.Confirmations
		}
	}
	return s, nil
}

// askPast asks also, if the endpoint does not know the transaction, whether it can still
// land. A no has to be beyond doubt, because the checkpoint is then paid for once more:
// the height of what is final is past the last that could have it, by both calls that
// tell it, the blockhash is not good any more, and the node that says so, behind the
// endpoint's one address, has itself got as far.
func askPast(ctx context.Context, c *rpc.Client, sig solana.Signature, hash solana.Hash, expires uint64) (said, error) {
	s, err := ask(ctx, c, sig)
	if err != nil || s.found {
		return s, err
	}
	type epoch struct {
		Slot   uint64 `json:"absoluteSlot"`
		Height uint64 `json:"blockHeight"`
	}
	e, err := call[epoch](ctx, c, "getEpochInfo", at(rpc.CommitmentFinalized))
	if err != nil || e.Height <= expires {
		return s, err
	}
	if h, err := call[uint64](ctx, c, "getBlockHeight", at(rpc.CommitmentFinalized)); err != nil || h <= expires {
		return s, err
	}
	good, err := call[inContext[bool]](ctx, c, "isBlockhashValid", hash.String(), at(rpc.CommitmentProcessed))
	switch {
	case code(err) == codeMethodNotFound:
	case err != nil:
		return s, err
	case good.Value == nil || *good.Value:
		return s, nil
	}
	if s, err = ask(ctx, c, sig); err == nil && !s.found {
		s.past = s.now >= e.Slot
	}
	return s, err
}

// Status implements anchor.Chain. All endpoints are asked.
func (k *Chain) Status(ctx context.Context, tx anchor.Tx) (anchor.Status, error) {
	t, err := decode(tx.Raw)
	if err != nil {
		return anchor.Status{}, fmt.Errorf("transaction %s: %w", tx.ID, err)
	}
	if len(t.Signatures) == 0 || t.Signatures[0].String() != tx.ID {
		return anchor.Status{}, fmt.Errorf("transaction %s is not what is stored under its name", tx.ID)
	}
	all := make([]said, k.cfg.Endpoints.Len())
	errs := k.cfg.Endpoints.Some(ctx, k.cfg.Agree, func(ctx context.Context, i int, e *endpoint.Endpoint) error {
		return k.on(func(ctx context.Context, c *rpc.Client) (err error) {
			all[i], err = askPast(ctx, c, t.Signatures[0], t.Message.RecentBlockhash, tx.Expires)
			if err != nil {
				all[i].ok = false
			}
			all[i].who = e.String()
			return err
		})(ctx, e)
	})
	st, slot, err := k.judge(tx, all)
	if err != nil {
		return st, errors.Join(append([]error{err}, errs...)...)
	}
	if st.Phase == anchor.Included || st.Phase == anchor.Settled {
		st.Receipt.Chain, st.Receipt.Raw, st.Receipt.Network, st.Receipt.Height = Name, tx.Raw, k.genesis.String(), slot
		if err := k.block(ctx, &st.Receipt, st.Phase == anchor.Settled); err != nil {
			return anchor.Status{}, err
		}
	}
	return st, nil
}

// final reports whether the endpoint says that the transaction is.
func (s said) final() bool { return s.found && s.level == rpc.ConfirmationStatusFinalized }

// like reports whether two endpoints say the same of where the transaction is, and how it
// ended there.
func (s said) like(o said) bool {
	return s.found && s.slot == o.slot && (s.failed == "") == (o.failed == "")
}

// against reports whether what the endpoint says contradicts what o says of a final
// transaction. One that has not got as far does not.
func (s said) against(o said) bool {
	return s.ok && !s.like(o) && (s.found || s.now >= o.slot)
}

// words tell what the endpoint says.
func (s said) words() string {
	switch {
	case s.past:
		return "it is in no block, and none can take it any more"
	case !s.found:
		return fmt.Sprintf("at slot %d that it does not know it", s.now)
	case s.failed != "":
		return fmt.Sprintf("%s in slot %d, failed: %s", s.level, s.slot, s.failed)
	}
	return fmt.Sprintf("%s in slot %d", s.level, s.slot)
}

// count returns how many endpoints meet a condition, and what the others say that meet
// the second one.
func count(all []said, say, against func(said) bool) (n, others int, dissent string) {
	var who, what []string
	for _, s := range all {
		switch {
		case !s.ok:
		case say(s):
			n++
		case against(s):
			who, what = append(who, s.who), append(what, s.words())
		}
	}
	return n, len(who), anchor.Dissent(who, what)
}

// judge makes one status of what the endpoints said, by the rule of anchor.Agreed.
func (k *Chain) judge(tx anchor.Tx, all []said) (anchor.Status, uint64, error) {
	agreed := func(n, others int) bool { return anchor.Agreed(n, others, k.cfg.Agree, len(all)) }
	answered, _, _ := count(all, func(s said) bool { return true }, nil)
	if answered == 0 {
		return anchor.Status{}, 0, anchor.ErrUnavailable
	}
	// Each outcome that one of them has is a candidate.
	for _, o := range all {
		if !o.ok || !o.final() {
			continue
		}
		n, others, dissent := count(all, func(s said) bool { return s.final() && s.like(o) }, func(s said) bool { return s.against(o) })
		switch {
		case !agreed(n, others):
		case o.failed != "":
			return anchor.Status{Phase: anchor.Failed, Detail: fmt.Sprintf("slot %d: %s", o.slot, o.failed), Dissent: dissent}, o.slot, nil
		default:
			return anchor.Status{
				Phase: anchor.Settled, Detail: fmt.Sprintf("finalized in slot %d", o.slot), Dissent: dissent, Receipt: anchor.Receipt{Final: true},
			}, o.slot, nil
		}
	}
	n, others, dissent := count(all, func(s said) bool { return s.past }, func(said) bool { return true })
	if agreed(n, others) {
		return anchor.Status{Phase: anchor.Dead, Detail: fmt.Sprintf("in no block up to %d, the last that could have it", tx.Expires), Dissent: dissent}, 0, nil
	}
	// Nothing is certain yet. What most say is what is done next; nothing of it costs money.
	n, _, dissent = count(all, func(s said) bool { return !s.found }, func(said) bool { return true })
	if n == answered || 2*n > len(all) {
		return anchor.Status{Phase: anchor.Absent, Detail: "no endpoint knows it", Dissent: dissent}, 0, nil
	}
	st, slot := k.open(all)
	return st, slot, nil
}

// open is the status of a transaction that some endpoints know, and that is not settled:
// what most of those who are furthest say.
func (k *Chain) open(all []said) (anchor.Status, uint64) {
	rank := func(s said) int {
		switch s.level {
		case rpc.ConfirmationStatusFinalized:
			return 2
		case rpc.ConfirmationStatusConfirmed:
			return 1
		}
		return 0
	}
	var best said
	most := 0
	for _, o := range all {
		if !o.ok || !o.found {
			continue
		}
		n, _, _ := count(all, func(s said) bool { return s.like(o) }, func(said) bool { return false })
		if n > most || n == most && rank(o) > rank(best) {
			most, best = n, o
		}
	}
	_, _, dissent := count(all, func(s said) bool { return s.like(best) }, func(s said) bool { return s.against(best) })
	st := anchor.Status{Dissent: dissent}
	level, depth := 0, uint64(0)
	for _, s := range all {
		if s.ok && s.like(best) {
			level, depth = max(level, rank(s)), max(depth, s.depth)
		}
	}
	switch {
	case best.failed != "":
		st.Phase, st.Detail = anchor.Waiting, fmt.Sprintf("failed in slot %d, which is not final: %s", best.slot, best.failed)
	case level > 0:
		st.Phase, st.Detail, st.Receipt.Depth = anchor.Included, fmt.Sprintf("confirmed in slot %d", best.slot), depth
	default:
		st.Phase, st.Detail = anchor.Waiting, fmt.Sprintf("processed in slot %d", best.slot)
	}
	return st, best.slot
}

// block fills in the block's hash and time, which an endpoint claims. While a block is
// not final, not to know them is no failure.
func (k *Chain) block(ctx context.Context, r *anchor.Receipt, final bool) error {
	level := rpc.CommitmentConfirmed
	if final {
		level = rpc.CommitmentFinalized
	}
	err := k.cfg.Endpoints.First(ctx, k.on(func(ctx context.Context, c *rpc.Client) error {
		b, err := blockAt(ctx, c, r.Height, level)
		if err != nil {
			return err
		}
		r.Block, r.Time = b.hash, b.time
		return nil
	}))
	if err != nil && final {
		return fmt.Errorf("block of slot %d: %w", r.Height, err)
	}
	return nil
}

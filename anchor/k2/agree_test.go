package k2_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/gagliardetto/solana-go"

	"github.com/koii-network/scale/anchor"
	"github.com/koii-network/scale/anchor/anchortest"
)

func rawText(tx anchor.Tx) string { return base64.StdEncoding.EncodeToString(tx.Raw) }

// value changes the value of a result in a context.
func value(f func(v any) any) anchortest.Fault {
	return anchortest.Result(func(r any) any {
		if m, ok := r.(map[string]any); ok {
			m["value"] = f(m["value"])
		}
		return r
	})
}

// statuses answers getSignatureStatuses with one status, or none.
func statuses(s map[string]any) anchortest.Fault {
	return value(func(any) any {
		if s == nil {
			return []any{nil}
		}
		return []any{s}
	})
}

// lied is a status that is not so.
func lied(slot int, level string, err any) map[string]any {
	return map[string]any{"slot": slot, "confirmations": nil, "err": err, "status": map[string]any{"Ok": nil}, "confirmationStatus": level}
}

// far makes an endpoint pretend that the chain is far ahead.
func far(p *anchortest.Proxy) {
	p.Fault("getEpochInfo", -1, anchortest.Result(func(r any) any {
		m := r.(map[string]any)
		m["absoluteSlot"], m["blockHeight"] = 1<<40, 1<<40
		return m
	}))
	p.Fault("getBlockHeight", -1, anchortest.Result(func(any) any { return 1 << 40 }))
	p.Fault("isBlockhashValid", -1, value(func(any) any { return false }))
}

// lies are what one endpoint can say that is not so.
var lies = map[string]func(p *anchortest.Proxy){
	"final already": func(p *anchortest.Proxy) { p.Fault("getSignatureStatuses", -1, statuses(lied(0, "finalized", nil))) },
	"failed": func(p *anchortest.Proxy) {
		p.Fault("getSignatureStatuses", -1, statuses(lied(1, "processed", map[string]any{"InstructionError": []any{0, "Custom"}})))
	},
	"never heard of it, and it is too late": func(p *anchortest.Proxy) {
		p.Fault("getSignatureStatuses", -1, anchortest.Result(func(any) any {
			return map[string]any{"context": map[string]any{"slot": 1 << 41}, "value": []any{nil}}
		}))
		far(p)
	},
	"never heard of it": func(p *anchortest.Proxy) { p.Fault("getSignatureStatuses", -1, statuses(nil)) },
	"a blockhash that nobody knows": func(p *anchortest.Proxy) {
		p.Fault("getLatestBlockhash", -1, value(func(v any) any {
			v.(map[string]any)["blockhash"] = "5eykt4UsFv8P8NJdTREpY1vzqKqZKvdpKuc147dw2N9d"
			return v
		}))
	},
	"a blockhash that is good for ever": func(p *anchortest.Proxy) {
		p.Fault("getLatestBlockhash", -1, value(func(v any) any {
			v.(map[string]any)["lastValidBlockHeight"] = 1 << 50
			return v
		}))
	},
	"a blockhash that is hardly good": func(p *anchortest.Proxy) {
		p.Fault("getLatestBlockhash", -1, value(func(v any) any {
			v.(map[string]any)["lastValidBlockHeight"] = 1
			return v
		}))
	},
	"takes transactions and keeps them": func(p *anchortest.Proxy) {
		p.Fault("sendTransaction", -1, func(x *anchortest.Exchange) {
			tx, err := sentTx(x.Body)
			if err != nil {
				anchortest.Error(-32602, err.Error())(x)
				return
			}
			anchortest.Body(`{"jsonrpc":"2.0","id":1,"result":"` + tx + `"}`)(x)
		})
	},
	"takes another transaction": func(p *anchortest.Proxy) {
		p.Fault("sendTransaction", -1, anchortest.Result(func(any) any {
			return "5VERv8NMvzbJMEkV8xnrLkEaWRtSz9CosKDYjCJjBRnbJLgp8uirBgmQpjKhoR4tjF3ZpRzrFmBV6UjKdiSZkQUW"
		}))
	},
	"no fee":          func(p *anchortest.Proxy) { p.Fault("getFeeForMessage", -1, value(func(any) any { return 0 })) },
	"a fee too high":  func(p *anchortest.Proxy) { p.Fault("getFeeForMessage", -1, value(func(any) any { return 1 << 50 })) },
	"no money":        func(p *anchortest.Proxy) { p.Fault("getBalance", -1, value(func(any) any { return 0 })) },
	"no memo program": func(p *anchortest.Proxy) { p.Fault("getAccountInfo", -1, value(func(any) any { return nil })) },
	"refuses all": func(p *anchortest.Proxy) {
		p.Fault("sendTransaction", -1, anchortest.Error(-32602, "no"))
	},
	"refuses and does it": func(p *anchortest.Proxy) {
		p.Fault("sendTransaction", -1, func(x *anchortest.Exchange) {
			_, _ = x.Forward() // the lie is about its answer
			anchortest.Error(-32602, "no")(x)
		})
	},
}

// One of three endpoints that lies costs no money, and does not make anything final that
// is not; the checkpoint gets there by the other two.
func TestOneLies(t *testing.T) {
	s := newStore(t)
	for name, lie := range lies {
		t.Run(name, func(t *testing.T) {
			put(t, s)
			w := newWorld(t, s, 3)
			lie(w.proxies[0])
			r := w.final(1)
			switch name {
			case "final already", "failed", "never heard of it", "never heard of it, and it is too late":
				if !strings.Contains(r.Text(), w.proxies[0].URL()+" says ") {
					t.Errorf("nobody says who lies: %q", w.words)
				}
			}
		})
	}
}

// Against the only endpoint there is no defence but not to sign once more before it is
// certain. These keep the checkpoint from getting there, and cost one transaction.
func TestOnlyOneLies(t *testing.T) {
	for name, lie := range map[string]func(p *anchortest.Proxy){
		// Behind one address are many nodes, of which one is stale.
		"stale status": func(p *anchortest.Proxy) {
			p.Fault("getSignatureStatuses", -1, anchortest.Result(func(any) any {
				return map[string]any{"context": map[string]any{"slot": 1}, "value": []any{nil}}
			}))
		},
		"height too high": func(p *anchortest.Proxy) {
			p.Fault("getSignatureStatuses", -1, statuses(nil))
			p.Fault("getBlockHeight", -1, anchortest.Result(func(any) any { return 1 << 40 }))
		},
		"height too low": func(p *anchortest.Proxy) {
			p.Fault("getSignatureStatuses", -1, statuses(nil))
			p.Fault("getBlockHeight", -1, anchortest.Result(func(any) any { return 1 }))
		},
		"epoch too far": func(p *anchortest.Proxy) {
			p.Fault("getSignatureStatuses", -1, statuses(nil))
			p.Fault("getEpochInfo", -1, anchortest.Result(func(r any) any {
				m := r.(map[string]any)
				m["absoluteSlot"], m["blockHeight"] = 1<<40, 1<<40
				return m
			}))
		},
		"blockhash still good": func(p *anchortest.Proxy) {
			p.Fault("getSignatureStatuses", -1, statuses(nil))
			p.Fault("isBlockhashValid", -1, value(func(any) any { return true }))
		},
		"blockhash nowhere near its end": func(p *anchortest.Proxy) {
			p.Fault("getLatestBlockhash", -1, value(func(v any) any {
				v.(map[string]any)["lastValidBlockHeight"] = 1
				return v
			}))
			p.Fault("getSignatureStatuses", 3, statuses(nil))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, newStore(t), 1)
			lie(w.proxies[0])
			// When it really is too late, the only one that could know still says no: until then.
			waits := 3 * valid
			if name == "height too high" || name == "epoch too far" {
				waits = valid / 2
			}
			if _, err := w.run(waits, func(r anchor.Row) bool { return r.State == anchor.Expired || isFinal(r) }); err == nil && !isFinal(*w.newest()) {
				t.Errorf("given up: %q", w.words)
			}
			if got := paid(t, w.wallet); len(got) != 1 {
				t.Errorf("paid for %v", got)
			}
			w.proxies[0].Heal()
			if r := w.newest(); r.State != anchor.Final {
				w.final(1)
			}
		})
	}
}

// With one of two down anchors go on; two that contradict each other make nothing final,
// and the row says who said what.
func TestNoMajority(t *testing.T) {
	for name, lie := range lies {
		switch name {
		case "final already", "failed", "never heard of it", "never heard of it, and it is too late":
		default:
			continue
		}
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, newStore(t), 2)
			lie(w.proxies[1])
			last, err := w.run(3*valid, isFinal)
			if !errors.Is(err, errLimit) {
				t.Errorf("%v in %s", err, last.State)
			}
			if !w.says(w.proxies[0].URL()+" says ") && !w.says(w.proxies[1].URL()+" says ") {
				t.Errorf("nobody says who disagrees: %q", w.words)
			}
			w.proxies[1].Heal()
			if r := w.final(1); r.Attempt != 1 {
				t.Errorf("attempt %d", r.Attempt)
			}
		})
	}
}

func TestOneOfTwoDown(t *testing.T) {
	for i := range 2 {
		w := newWorld(t, newStore(t), 2)
		w.proxies[i].Down()
		if r := w.final(1); r.Attempt != 1 {
			t.Errorf("attempt %d", r.Attempt)
		}
	}
}

// sentTx returns the name of the transaction in a call of sendTransaction.
func sentTx(body []byte) (string, error) {
	var call struct{ Params []any }
	if err := json.Unmarshal(body, &call); err != nil {
		return "", err
	}
	text, _ := call.Params[0].(string)
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return "", err
	}
	tx, err := solana.TransactionFromBytes(raw)
	if err != nil {
		return "", err
	}
	return tx.Signatures[0].String(), nil
}

package anchor

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
)

func receiptOf(chain string) Receipt {
	return Receipt{Chain: chain, Raw: []byte("raw transaction"), Network: "genesis", Height: 300, Block: "block", Time: 1790000000, Depth: 32, Final: true}
}

func TestReceiptForm(t *testing.T) {
	r := receiptOf("k2")
	b := r.Append(nil)
	got, err := ParseReceipt(b)
	if err != nil || !reflect.DeepEqual(got, r) {
		t.Fatalf("%+v, %v", got, err)
	}
	for i := range b {
		if _, err := ParseReceipt(b[:i]); err == nil {
			t.Errorf("%d of %d bytes are taken", i, len(b))
		}
	}
	if _, err := ParseReceipt(append(b, 0)); err == nil {
		t.Error("a byte too many is taken")
	}
	r.Chain = strings.Repeat("k", maxChain+1)
	if _, err := ParseReceipt(r.Append(nil)); err == nil {
		t.Error("a chain's name of 33 bytes is taken")
	}
}

func FuzzParseReceipt(f *testing.F) {
	f.Add(receiptOf("k2").Append(nil))
	f.Add([]byte{2, 'k', '2', 0x80, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseReceipt(b)
		if err == nil && !bytes.Equal(r.Append(nil), b) {
			t.Errorf("%x is read, but written as %x", b, r.Append(nil))
		}
	})
}

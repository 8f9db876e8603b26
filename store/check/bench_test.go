package check_test

import (
	"testing"

	"github.com/koii-network/scale/store"
	"github.com/koii-network/scale/store/check"
)

// What a check costs for each byte put, half of it incompressible.
func BenchmarkCheck(b *testing.B) {
	const half = 128 << 20
	dir := newStore(b, []store.Input{stream("noise", noise(1, half)), stream("prose", prose(1, half))})
	for name, read := range map[string]bool{"headers": false, "data": true} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(2 * half)
			for b.Loop() {
				if _, sum := run(b, dir, check.Options{ReadData: read}); !sum.Sound() {
					b.Fatal("not sound")
				}
			}
		})
	}
}

package pack_test

import (
	"testing"

	"github.com/koii-network/scale/store/pack"
	"github.com/koii-network/scale/store/storetest"
)

func TestContract(t *testing.T) {
	storetest.TestPacks(t, func(dir string, tail pack.Tail) (pack.Store, error) {
		return pack.Open(dir, pack.Options{Target: 64 << 10}, tail)
	})
}

package ledger_test

import (
	"testing"

	"github.com/koii-network/scale/dag/ledger"
)

func TestPrivateName(t *testing.T) {
	key := ledger.NameKey{1, 2, 3}
	salt := key.Salt("photos")
	name, err := ledger.PrivateName("photos", salt)
	if err != nil {
		t.Fatal(err)
	}
	// printf 'scale private name v1\n%s\n%s\n' SALT photos | sha256sum
	if want := "private-8327b4d00dbac60dcf0df7472a0d6f87a085b8d2592bbfca111d9c86df58ecee"; name != want {
		t.Errorf("%s, want %s", name, want)
	}
	if ledger.CheckName(name) != nil {
		t.Errorf("%s is no name", name)
	}
	if again := key.Salt("photos"); again != salt || key.Salt("photo") == salt || (ledger.NameKey{}).Salt("photos") == salt {
		t.Error("salts do not depend on key and name alone")
	}
	if other, err := ledger.PrivateName("photo", salt); err != nil || other == name {
		t.Errorf("%s, %v", other, err)
	}
	for _, bad := range []string{"", "a b", name} {
		if _, err := ledger.PrivateName(bad, salt); err == nil {
			t.Errorf("%q got a private name", bad)
		}
	}
}

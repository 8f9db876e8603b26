package ledger

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// PrivatePrefix begins names that stand for others: see PrivateName.
const PrivatePrefix = "private-"

const privateDomain = "scale private name v1\n"

// A NameKey makes private names. Whoever has it can find out which names were recorded
// by trying them.
type NameKey [32]byte

// Salt returns the salt of a name: of one name always the same, so that its versions
// have one name, and telling nothing of the salts of others.
func (k NameKey) Salt(name string) [32]byte {
	m := hmac.New(sha256.New, k[:])
	m.Write([]byte(privateDomain + name)) // never fails
	return [32]byte(m.Sum(nil))
}

// PrivateName returns what is recorded instead of a name: a digest of it and a salt. Its
// owner proves the name by showing both.
func PrivateName(name string, salt [32]byte) (string, error) {
	if err := CheckName(name); err != nil {
		return "", err
	}
	if strings.HasPrefix(name, PrivatePrefix) {
		return "", fmt.Errorf("%w: %q looks like a private name itself", ErrFormat, name)
	}
	h := sha256.Sum256([]byte(privateDomain + hex.EncodeToString(salt[:]) + "\n" + name + "\n"))
	return PrivatePrefix + hex.EncodeToString(h[:]), nil
}

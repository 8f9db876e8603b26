package grpcapi

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"time"

	scalev1 "github.com/koii-network/scale/proto/scale/v1"
)

// ErrToken: no token, or one that is malformed, unknown, expired or revoked.
var ErrToken = errors.New("token not accepted")

// A Token is what a node keeps of a token: not its secret.
type Token struct {
	// Name is 1 to 64 of A-Z a-z 0-9 . _ -
	Name    string
	Scope   scalev1.Scope
	Created time.Time
	// Expires is the zero time for never.
	Expires time.Time
}

// The text of a token is
//
//	scale_ID_SECRET_CHECK
//
// ID are 8 and SECRET 52 characters of base32 in lower case (RFC 4648, no padding), 5 and
// 32 random bytes. CHECK are 8 hexadecimal digits, the CRC-32 (IEEE) of all before the last
// "_", so that a typing error is told from a token that is not known, and scanners for
// secrets find few others. Nodes keep the SHA-256 of the text.
const (
	tokenPrefix   = "scale_"
	tokenIDLen    = 8
	tokenTextLen  = len(tokenPrefix) + tokenIDLen + 1 + 52 + 1 + 8
	tokenIDSize   = 5
	tokenKeySize  = 32
	maxTokenName  = 64
	tokenAlphabet = "abcdefghijklmnopqrstuvwxyz234567"
)

var tokenCoding = base32.NewEncoding(tokenAlphabet).WithPadding(base32.NoPadding)

type tokenHash [sha256.Size]byte

func hashToken(text string) tokenHash { return sha256.Sum256([]byte(text)) }

// newSecret makes the text of a token and returns it with its ID.
func newSecret() (text, id string) {
	b := make([]byte, tokenIDSize+tokenKeySize)
	rand.Read(b) // never fails
	id = tokenCoding.EncodeToString(b[:tokenIDSize])
	return formatToken(id, b[tokenIDSize:]), id
}

func formatToken(id string, key []byte) string {
	s := tokenPrefix + id + "_" + tokenCoding.EncodeToString(key)
	return fmt.Sprintf("%s_%08x", s, crc32.ChecksumIEEE([]byte(s)))
}

// parseToken returns the ID of a token if its text is one that formatToken makes. The
// error does not repeat the text.
func parseToken(text string) (id string, err error) {
	malformed := func(why string) (string, error) {
		return "", fmt.Errorf("%w: it is not the text that \"scale token create\" printed (%s)", ErrToken, why)
	}
	if !strings.HasPrefix(text, tokenPrefix) {
		return malformed("it does not begin with " + tokenPrefix)
	}
	if len(text) != tokenTextLen {
		return malformed(fmt.Sprintf("%d characters, not %d", len(text), tokenTextLen))
	}
	id = text[len(tokenPrefix):][:tokenIDLen]
	body := text[len(tokenPrefix)+tokenIDLen+1 : tokenTextLen-9]
	key, err := tokenCoding.DecodeString(body)
	if err != nil || checkTokenID(id) != nil || formatToken(id, key) != text {
		return malformed("its checksum does not match")
	}
	return id, nil
}

func checkTokenID(id string) error {
	if b, err := tokenCoding.DecodeString(id); err != nil || len(b) != tokenIDSize || tokenCoding.EncodeToString(b) != id {
		return fmt.Errorf("%q is not the id of a token", id)
	}
	return nil
}

func parseTokenHash(s string) (h tokenHash, err error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(h) || hex.EncodeToString(b) != s {
		return h, errors.New("not a SHA-256 in hexadecimal")
	}
	return tokenHash(b), nil
}

// CheckTokenName says what is wrong with the name of a token.
func CheckTokenName(name string) error {
	if name == "" || len(name) > maxTokenName {
		return fmt.Errorf("a token's name is 1 to %d characters, not %d", maxTokenName, len(name))
	}
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' && c != '_' && c != '-' {
			return fmt.Errorf("a token's name is of A-Z a-z 0-9 . _ -, without %q", c)
		}
	}
	return nil
}

// scopeNames are the scopes as people and files write them.
var scopeNames = map[scalev1.Scope]string{
	scalev1.Scope_SCOPE_READ:  "read",
	scalev1.Scope_SCOPE_WRITE: "write",
	scalev1.Scope_SCOPE_ADMIN: "admin",
}

// ParseScope returns the scope that is called "read", "write" or "admin".
func ParseScope(s string) (scalev1.Scope, error) {
	for scope, name := range scopeNames {
		if s == name {
			return scope, nil
		}
	}
	return scalev1.Scope_SCOPE_UNSPECIFIED, fmt.Errorf("%q is not a scope: read, write or admin", s)
}

// FormatScope returns the name that ParseScope takes, or "none".
func FormatScope(s scalev1.Scope) string {
	if name, ok := scopeNames[s]; ok {
		return name
	}
	return "none"
}

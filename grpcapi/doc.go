// Package grpcapi is a node: a server of the API in proto/scale/v1 over one open store, and
// a client of it that is used like a store.
//
// [Server] serves gRPC. It bounds what callers can take ([Limits]), tells them in the terms
// of the API what went wrong (errors.go has the one table, for both ends), and stops in
// order. Who may do what is decided by a function that it is given; [Authenticator] is one,
// by tokens, client certificates and the private socket of a store's owner. The same
// services as JSON over HTTP, metrics and health are served beside it.
//
// The package keeps no data of its own: what a caller has been told is durable is durable
// because the store says so.
package grpcapi

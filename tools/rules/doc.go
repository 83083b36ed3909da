// Package rules holds the rules of this repository that the compiler does not know: who may import whom, and what a program that uses
// procpool has to link. Its test checks them.
package rules

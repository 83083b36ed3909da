#!/usr/bin/env perl
# A line worker: for each line on stdin, the name of a file, one line on stdout, how many lines it has.
#
#   procpool map --lines -- perl examples/lines/count.pl ::: README.md go.mod
use strict;
use warnings;

$| = 1; # flush after each print
while (my $name = <STDIN>) {
	chomp $name;
	open my $f, '<', $name or die "$name: $!\n"; # ends the program, and so this item and no other one
	my $n = 0;
	$n++ while <$f>;
	print "$n\n";
}

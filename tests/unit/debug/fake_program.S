# What the threads of FakeTarget run: a loop that counts in memory, two levels of calls, a system call.
# Only instructions that debug/target/fake_machine.cpp knows.
        .text
        .globl _start
        .type _start, @function
_start:
        .cfi_startproc
        .cfi_undefined rip
        call work
        incq rounds
        jmp _start
        .cfi_endproc
        .size _start, . - _start

        .globl work
        .type work, @function
work:
        .cfi_startproc
        push %rbp
        .cfi_def_cfa_offset 16
        .cfi_offset rbp, -16
        mov %rsp, %rbp
        .cfi_def_cfa_register rbp
        mov $5, %rcx
again:
        incq counter
        dec %rcx
        jne again
        call leaf
        pop %rbp
        .cfi_def_cfa rsp, 8
        ret
        .cfi_endproc
        .size work, . - work

        .globl leaf
        .type leaf, @function
leaf:
        .cfi_startproc
        nop
        mov $39, %rax
        syscall
        ret
        .cfi_endproc
        .size leaf, . - leaf

        # Not called: gdb is sent here by its tests.
        .globl forks
        .type forks, @function
forks:
        .cfi_startproc
        mov $57, %rax
        syscall
        jmp _start
        .cfi_endproc
        .size forks, . - forks

        .globl execs
        .type execs, @function
execs:
        .cfi_startproc
        mov $59, %rax
        syscall
        jmp _start
        .cfi_endproc
        .size execs, . - execs

        .globl ends
        .type ends, @function
ends:
        .cfi_startproc
        mov $7, %rdi
        mov $60, %rax
        syscall
        .cfi_endproc
        .size ends, . - ends

        .data
        .globl counter, rounds, words
        .type counter, @object
        .size counter, 8
counter: .quad 0
        .type rounds, @object
        .size rounds, 8
rounds: .quad 0
        .type words, @object
words:  .asciz "a needle in memory"
        .size words, . - words

        .section .note.GNU-stack, "", @progbits

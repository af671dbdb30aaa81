// The context switch; sched/context.hpp describes it.
        .text

// void cowbird_switch_context(SavedContext *from /* rdi */, const SavedContext *to /* rsi */)
        .globl  cowbird_switch_context
        .type   cowbird_switch_context, @function
        .p2align 4
cowbird_switch_context:
        .cfi_startproc
        endbr64
        pushq   %rbp
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset rbp, 0
        pushq   %rbx
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset rbx, 0
        pushq   %r12
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset r12, 0
        pushq   %r13
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset r13, 0
        pushq   %r14
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset r14, 0
        pushq   %r15
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset r15, 0
        subq    $8, %rsp
        .cfi_adjust_cfa_offset 8
        stmxcsr (%rsp)
        fnstcw  4(%rsp)
        movq    %rsp, (%rdi)
        // Both stacks have the same layout here, so the unwind information stays right.
        movq    (%rsi), %rsp
.Lswitched:
        ldmxcsr (%rsp)
        fldcw   4(%rsp)
        addq    $8, %rsp
        .cfi_adjust_cfa_offset -8
        popq    %r15
        .cfi_adjust_cfa_offset -8
        .cfi_restore r15
        popq    %r14
        .cfi_adjust_cfa_offset -8
        .cfi_restore r14
        popq    %r13
        .cfi_adjust_cfa_offset -8
        .cfi_restore r13
        popq    %r12
        .cfi_adjust_cfa_offset -8
        .cfi_restore r12
        popq    %rbx
        .cfi_adjust_cfa_offset -8
        .cfi_restore rbx
        popq    %rbp
        .cfi_adjust_cfa_offset -8
        .cfi_restore rbp
        ret
        .cfi_endproc
        .size   cowbird_switch_context, . - cowbird_switch_context

        // Where a thread that is switched to goes on: what the debugger shows as its program counter.
        .section .data.rel.ro, "aw", @progbits
        .p2align 3
        .globl  cowbird_switched_address
        .type   cowbird_switched_address, @object
cowbird_switched_address:
        .quad   .Lswitched
        .size   cowbird_switched_address, . - cowbird_switched_address
        .text

        .globl  cowbird_thread_entry
        .type   cowbird_thread_entry, @function
        .p2align 4
cowbird_thread_entry:
        .cfi_startproc
        .cfi_undefined rip
        nop                     // so that a return address minus one is still in here
        movq    %rbx, %rdi
        call    cowbird_thread_main@PLT
        ud2
        .cfi_endproc
        .size   cowbird_thread_entry, . - cowbird_thread_entry

        .section .note.GNU-stack,"",@progbits
